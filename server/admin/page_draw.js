// The charts, the ages and the rings.

// Charts. A sample has the numbers of one status, and the rates since the status before.

const maxSeconds = 120, minSeconds = 20; // the time that a chart spans; it grows with the samples
const samples = [];
let before = null;

const plots = [
  {name: 'Commands', unit: '/s', rate: true, count: s => s.counters.commands.reduce((sum, c) => sum + c.count, 0)},
  {name: 'Grants', unit: '/s', rate: true, count: s => s.counters.grants},
  {name: 'Timeouts', unit: '/s', rate: true, look: 'wait', count: s => s.counters.timeouts},
  {name: 'Held keys', unit: '', count: s => s.held_keys},
  {name: 'Waiters', unit: '', look: 'wait', count: s => s.waiters},
  {name: 'Connections', unit: '', count: s => s.connections},
];

for (const plot of plots) {
  plot.now = element('b', {}, '–');
  plot.peak = element('small', {}, ' ');
  plot.area = svgElement('path', {class: 'area'});
  plot.line = svgElement('path', {class: 'line'});
  plot.grid = svgElement('path', {class: 'grid'}); // every 30 s
  plot.begin = element('span');
  plot.chart = svgElement('svg', {viewBox: '0 0 120 32', preserveAspectRatio: 'none', role: 'img', 'aria-label': plot.name},
    plot.grid, plot.area, plot.line);
  $('plots').append(element('li', {class: plot.look ?? ''}, element('h3', {}, plot.name + plot.unit), plot.now, plot.peak, plot.chart,
    element('div', {class: 'axis', 'aria-hidden': 'true'}, plot.begin, element('span', {}, 'now'))));
}

function addSample(status) {
  // A server that was restarted counts from zero. The time between two statuses is measured by the clock of the server.
  const seconds = before ? status.uptime_seconds - before.uptime_seconds : 0;
  const same = before?.started === status.started && seconds > 0;
  const values = plots.map(plot => {
    if (!plot.rate) return plot.count(status);
    const more = same ? plot.count(status) - plot.count(before) : -1;
    return more < 0 ? null : more / seconds;
  });
  before = status;
  const now = performance.now() / 1000;
  samples.push({at: now, values});
  while (samples[0].at < now - maxSeconds) samples.shift();
  plots.forEach((plot, i) => draw(plot, i, now));
}

function draw(plot, i, now) {
  const value = samples.at(-1).values[i];
  setText(plot.now, value === null ? '–' : brief(value));
  const seen = samples.map(s => s.values[i]).filter(v => v !== null);
  if (!seen.length) return;
  const peak = Math.max(...seen);
  setText(plot.peak, 'peak ' + brief(peak));
  plot.chart.setAttribute('aria-label', plot.name + plot.unit + ', now ' + (value === null ? 'unknown' : brief(value)) + ', peak ' + brief(peak));
  const scale = Math.max(peak, 1);
  const shown = Math.max(now - samples[0].at, minSeconds);
  setText(plot.begin, duration(Math.round(Math.max(shown, 10))) + ' ago');
  plot.grid.setAttribute('d', [30, 60, 90].filter(ago => ago < shown).map(ago => `M${(120 - ago / shown * 120).toFixed(2)} 0V32`).join(''));
  let line = '', area = '', start = null, last = null;
  const end = () => {
    if (start) area += `L${last.x} 32L${start.x} 32Z`;
    start = null;
  };
  for (const s of samples) {
    // A page that was hidden did not poll: the gap stays empty.
    if (s.values[i] === null || last && s.at - last.at > 20) end();
    if (s.values[i] === null) continue;
    const point = {at: s.at, x: (120 - (now - s.at) / shown * 120).toFixed(2), y: (31 - s.values[i] / scale * 28).toFixed(2)};
    const step = `${start ? 'L' : 'M'}${point.x} ${point.y}`;
    line += step;
    area += step;
    start ??= point;
    last = point;
  }
  end();
  plot.line.setAttribute('d', line);
  plot.area.setAttribute('d', area);
}

// How long keys are held: how many for which time, the more the darker.

function showAges(ages) {
  $('ages').hidden = !ages || ages.counts.every(n => n === 0);
  if ($('ages').hidden) return;
  const bounds = ages.bounds.map(span), most = Math.max(...ages.counts);
  const labels = ages.counts.map((_, i) => i === 0 ? 'up to ' + bounds[0] : i < bounds.length ? bounds[i - 1] + ' to ' + bounds[i] : 'over ' + bounds[i - 1]);
  refill($('ages'), labels, () => labels.map(label => element('li', {}, element('b'), label)));
  ages.counts.forEach((n, i) => {
    const item = $('ages').children[i];
    setText(item.firstChild, brief(n));
    item.style.setProperty('--heat', Math.sqrt(n / most).toFixed(2));
  });
}

// span returns a bound, which is a whole number of one unit.
function span(seconds) {
  const [length, unit] = [[86400, 'd'], [3600, 'h'], [60, 'min']].find(([length]) => seconds >= length && seconds % length === 0) ?? [1, 's'];
  return seconds / length + ' ' + unit;
}

// Deadlocks.

let deadlocks = 0; // now

function showDeadlocks({cycles, found, broken, breaking}) {
  cycles ??= [];
  deadlocks = cycles.length;
  $('deadlocks').classList.toggle('present', cycles.length > 0);
  const now = (cycles.length === 0 ? 'No deadlock' : plural(cycles.length, 'deadlock')) + ' now.';
  setText($('deadlocks-text'), `${now} ${grouped.format(found)} found and ${grouped.format(broken)} broken since the start. ` +
    (breaking ? 'The server breaks deadlocks.' : 'The server does not break deadlocks: a kick does, or a timeout.'));
  refill($('cycles'), cycles.map(cycle => [cycle.id, ...cycle.waits.map(wait => [wait.connection, wait.name, wait.owner, wait.held_by])]),
    () => cycles.slice(0, 20).map(cycleElement));
  for (const cycle of cycles.slice(0, 20)) {
    cycle.waits.forEach((wait, i) => setText($(`waited-${cycle.id}-${i}`), duration(wait.waited_seconds)));
  }
}

function cycleElement(cycle) {
  const list = cycle.waits.map((wait, i) => element('li', {},
    element('span', {}, connectionLink(wait), ' has waited ', element('b', {id: `waited-${cycle.id}-${i}`}), ' for ',
      keyLink(wait.waits_for, 40), heldBy(wait, cycle.waits[(i + 1) % cycle.waits.length]))));
  const title = element('h3', {}, `Deadlock ${cycle.id}, found ` + instant(cycle.found));
  return element('div', {class: 'cycle'}, ring(cycle), element('div', {}, title, element('ol', {}, ...list), advice(cycle)));
}

// advice says whom to kick: the youngest wait, which comes last, and which the server itself would end.
function advice({waits}) {
  const victim = waits.at(-1), next = waits.at(-2) ?? victim;
  const frees = next.held_by === victim.connection ? ['a key that this frees. ']
    : [keyLink(next.waits_for, 40), `, which its owner should then give up with #${next.held_by}. `];
  return element('p', {class: 'advice'}, 'To end it, kick ', connectionLink(victim),
    `: it came last, so the least time is lost. ${nameOf(next)} waits for `, ...frees, kickButton('Kick #' + victim.connection, victim));
}

// heldBy says who holds the key of a wait: the next connection of the cycle, or another connection of the same owner.
function heldBy({held_by: holder}, next) {
  return `, which #${holder} holds` + (holder !== next.connection && next.owner ? ' for the owner ' + shorten(next.owner, 40) : '');
}

// ring draws a cycle: each connection points to the one that holds the key it waits for. The list beside it says the same
// in words. Of a long cycle the ring shows only the beginning.
function ring(cycle) {
  const most = 10, waits = cycle.waits.slice(0, most), n = waits.length;
  const cx = 170, cy = 112, radius = n < 5 ? 64 : 76;
  const at = (angle, r = radius) => [cx + r * Math.sin(angle), cy - r * Math.cos(angle)];
  const names = waits.map(wait => shorten('#' + wait.connection, 9));
  const width = i => Math.max(34, 14 + 7 * names[i].length), height = 24;
  // gap is the angle that a node covers on either side of its middle: more where the ring runs along its width.
  const gap = i => (5 + Math.abs(Math.cos(i * step)) * width(i) / 2 + Math.abs(Math.sin(i * step)) * height / 2) / radius;
  const step = 2 * Math.PI / n;
  const label = `A ring of ${plural(cycle.waits.length, 'connection')}, each waiting for the next`;
  const picture = svgElement('svg', {viewBox: '0 0 340 224', role: 'img', 'aria-label': label});
  waits.forEach((wait, i) => {
    const from = i * step + gap(i), to = (i + 1) * step - gap((i + 1) % n), middle = (from + to) / 2;
    const [fx, fy] = at(from), [x, y] = at(to), [lx, ly] = at(middle, radius + 12);
    const side = Math.sin(middle), anchor = side > 0.3 ? 'start' : side < -0.3 ? 'end' : 'middle';
    picture.append(
      svgElement('path', {class: 'arc', d: `M${fx} ${fy}A${radius} ${radius} 0 ${to - from > Math.PI ? 1 : 0} 1 ${x} ${y}`}),
      svgElement('path', {class: 'tip', d: 'M2 0L-7 -4.5L-7 4.5Z', transform: `translate(${x} ${y}) rotate(${to * 180 / Math.PI - 3})`}),
      svgElement('text', {class: 'label', x: lx, y: ly, 'text-anchor': anchor}, shorten(wait.waits_for, 11)));
  });
  names.forEach((name, i) => {
    const [x, y] = at(i * step);
    picture.append(
      svgElement('rect', {class: 'node', x: x - width(i) / 2, y: y - height / 2, width: width(i), height, rx: height / 2}),
      svgElement('text', {class: 'id', x, y}, name));
  });
  if (cycle.waits.length > most) picture.append(svgElement('text', {class: 'id', x: cx, y: cy}, `${most} of ${cycle.waits.length}`));
  return picture;
}

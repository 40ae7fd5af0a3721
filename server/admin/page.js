'use strict';

// Elements. Whatever comes from the server gets in as text.

const $ = id => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return build(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Rows stay what they are as long as their item is shown, so that the focus and a finger stay where they are.
function rows(table, items, idOf, make, fill) {
  const body = table.tBodies[0];
  const old = new Map(Array.from(body.rows, row => [row.dataset.id, row]));
  const now = items.map(item => {
    const id = String(idOf(item));
    const row = old.get(id) ?? element('tr', {'data-id': id}, ...make(item));
    old.delete(id);
    fill(row, item);
    return row;
  });
  for (const row of old.values()) row.remove();
  now.forEach((row, i) => {
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
  });
  table.hidden = items.length === 0;
}

// Numbers.

const grouped = new Intl.NumberFormat('en', {maximumFractionDigits: 0});
const compact = new Intl.NumberFormat('en', {notation: 'compact', minimumSignificantDigits: 3, maximumSignificantDigits: 3});
const clock = new Intl.DateTimeFormat(undefined, {dateStyle: 'medium', timeStyle: 'medium'});

function short(n) {
  if (n >= 10000) return compact.format(n);
  return n > 0 && n < 10 && !Number.isInteger(n) ? n.toFixed(1) : grouped.format(n);
}

function span(seconds) {
  if (seconds < 10) return Math.max(seconds, 0).toFixed(1) + ' s';
  const s = Math.floor(seconds), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (m < 1) return s + ' s';
  if (h < 1) return m + ' min ' + s % 60 + ' s';
  if (d < 1) return h + ' h ' + m % 60 + ' min';
  return d + ' d ' + h % 24 + ' h';
}

function several(n, one, many = one + 's') {
  return grouped.format(n) + ' ' + (n === 1 ? one : many);
}

function cut(text, length) {
  return text.length > length ? text.slice(0, length - 1) + '…' : text;
}

const keyLink = (key, length = 64) => element('a', {class: 'key', href: '#key=' + encodeURIComponent(key), title: cut(key, 200)}, cut(key, length));
const connectionLink = peer =>
  element('a', {class: 'who', href: '#connection=' + peer.connection}, '#' + peer.connection + ' ' + peer.address);
const kickButton = peer =>
  element('button', {class: 'kick', type: 'button', 'aria-label': 'Kick connection ' + peer.connection, onclick: () => askToKick(peer.connection)}, 'kick');

// The API.

class Failure extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function call(path, method = 'GET') {
  const token = sessionStorage.getItem('token');
  const response = await fetch('api/v1/' + path, {
    method, cache: 'no-store', signal: AbortSignal.timeout(8000), headers: token ? {Authorization: 'Bearer ' + token} : {},
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Failure(response.status, body.error ?? 'HTTP ' + response.status);
  return body;
}

function parameters(values) {
  const given = Object.entries(values).filter(([, value]) => value !== '' && value !== false);
  return given.length ? '?' + new URLSearchParams(given) : '';
}

// A part of the page is shown from one answer; of several under way only that to the last question counts.
function part(ask, show) {
  let last = 0;
  return async () => {
    const question = ++last;
    const answer = await ask();
    if (question === last) show(answer);
  };
}

// Plots. A sample has what one status says, and the rates since the one before.

const mostSeconds = 120, fewestSeconds = 20; // that are shown; as many as there are samples of
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
  plot.area = drawn('path', {class: 'area'});
  plot.line = drawn('path', {class: 'line'});
  plot.chart = drawn('svg', {viewBox: '0 0 120 32', preserveAspectRatio: 'none', role: 'img', 'aria-label': plot.name}, plot.area, plot.line);
  $('plots').append(element('li', {class: plot.look ?? ''}, element('h3', {}, plot.name + plot.unit), plot.now, plot.peak, plot.chart));
}

function sample(status) {
  // A server that was restarted counts from zero; the time between two of its statuses is by its own clock.
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
  while (samples[0].at < now - mostSeconds) samples.shift();
  plots.forEach((plot, i) => draw(plot, i, now));
}

function draw(plot, i, now) {
  const value = samples.at(-1).values[i];
  write(plot.now, value === null ? '–' : short(value));
  const seen = samples.map(s => s.values[i]).filter(v => v !== null);
  if (!seen.length) return;
  const peak = Math.max(...seen);
  write(plot.peak, 'peak ' + short(peak));
  plot.chart.setAttribute('aria-label', plot.name + plot.unit + ', the last two minutes: at most ' + short(peak));
  const scale = Math.max(peak, 1);
  const shown = Math.max(now - samples[0].at, fewestSeconds);
  let line = '', area = '', start = null, last = null;
  const end = () => {
    if (start) area += `L${last.x} 32L${start.x} 32Z`;
    start = null;
  };
  for (const s of samples) {
    // A page that was hidden has not asked.
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

function showStatus(status) {
  write($('about'), [
    status.version, 'serves ' + status.address, 'up ' + span(status.uptime_seconds), several(status.loops, 'loop'),
    several(status.connections, 'connection') + ' of at most ' + grouped.format(status.max_connections),
  ].join(' · '));
  const c = status.counters;
  const counts = [
    ...c.commands.map(count => [count.kind + ': ' + count.outcome.replaceAll('_', ' '), count.count]),
    ['connections accepted', c.accepted], ['grants', c.grants], ['timeouts', c.timeouts],
    ...Object.entries(c.disconnects ?? {}).map(([reason, n]) => ['disconnected: ' + reason.replaceAll('_', ' '), n]),
    ...Object.entries(c.limit_hits ?? {}).map(([limit, n]) => ['limit hit: ' + limit.replaceAll('_', ' '), n]),
    ['connections moved', c.moves], ['messages between loops', c.messages], ['wake-ups', c.wake_ups],
    ['deadlocks found', c.deadlocks_found], ['deadlocks broken', c.deadlocks_broken],
  ];
  $('counts').replaceChildren(...counts.map(([name, n]) =>
    element('div', {}, element('dt', {}, name), element('dd', {}, grouped.format(n)))));
  sample(status);
}

// Tables of keys.

const cell = (label, ...children) => element('td', label ? {'data-label': label} : {}, ...children);
const number = label => element('td', {class: 'n', 'data-label': label});

function keyRow(cells) {
  return key => [cell('', keyLink(key.key)), ...cells().flat()];
}

function holderCell(row, i, key) {
  if (row.cells[i].dataset.connection === String(key.holder.connection)) return;
  row.cells[i].dataset.connection = key.holder.connection;
  row.cells[i].replaceChildren(connectionLink(key.holder));
}

const bar = () => element('span', {class: 'bar'}, element('i'));

function showHot({keys}) {
  const waited = keys.filter(key => key.waiters > 0);
  const most = waited[0]?.waiters;
  rows($('hot'), waited, key => key.key,
    keyRow(() => [build(number('waiting'), {}, [element('span'), bar()]), cell('held by'), number('for')]),
    (row, key) => {
      write(row.cells[1].firstChild, grouped.format(key.waiters));
      row.querySelector('i').style.width = key.waiters / most * 100 + '%';
      holderCell(row, 2, key);
      write(row.cells[3], span(key.held_seconds));
    });
  $('hot-empty').hidden = waited.length > 0;
}

function showLong({keys}) {
  const waited = keys.filter(key => key.waiters > 0);
  const most = waited[0]?.longest_wait_seconds;
  rows($('long'), waited, key => key.key,
    keyRow(() => [build(number('waits for'), {}, [element('span'), bar()]), cell('held by'), number('for')]),
    (row, key) => {
      write(row.cells[1].firstChild, span(key.longest_wait_seconds));
      row.querySelector('i').style.width = key.longest_wait_seconds / Math.max(most, 0.001) * 100 + '%';
      holderCell(row, 2, key);
      write(row.cells[3], span(key.held_seconds));
    });
  $('long-empty').hidden = waited.length > 0;
}

function showFound(page) {
  write($('found-text'), page.matching ? several(page.matching, 'key') + (page.matching === 1 ? ' is held.' : ' are held.') : 'No such key is held.');
  rows($('found'), page.keys, key => key.key,
    keyRow(() => [number('waiting'), number('longest wait'), cell('held by'), number('for')]),
    (row, key) => {
      write(row.cells[1], grouped.format(key.waiters));
      write(row.cells[2], key.waiters ? span(key.longest_wait_seconds) : '–');
      holderCell(row, 3, key);
      write(row.cells[4], span(key.held_seconds));
    });
  $('found-more').hidden = !page.next || found.limit >= longest;
}

const longest = 1000; // what the server lists at most
const found = {limit: 0}; // 0 as long as nobody has asked
const listed = {limit: 20};

// Connections.

function showConnections(page) {
  write($('connections-text'), page.matching ? several(page.matching, 'connection') + '.' : 'No such connection.');
  rows($('connections'), page.connections, c => c.connection,
    c => [cell('', connectionLink(c)), cell(''), cell('holds'), cell('waits for'), number('connected'),
      element('td', {class: 'act'}, kickButton(c))],
    (row, c) => {
      if (row.cells[1].textContent !== c.state) row.cells[1].replaceChildren(element('span', {class: 'state ' + c.state}, c.state));
      const holds = (c.holds ?? []).slice(0, 3);
      refill(row.cells[2], [c.held, ...holds], () => c.held === 0 ? []
        : [several(c.held, 'key') + ': ', ...holds.flatMap((key, i) => [i ? ', ' : '', keyLink(key, 20)]), c.held > holds.length ? ' …' : '']);
      refill(row.cells[3], [c.waits_for], () => c.waits_for ? [keyLink(c.waits_for, 20), element('span', {class: 'quiet'})] : []);
      if (c.waits_for) write(row.cells[3].lastChild, ' ' + span(c.waited_seconds));
      write(row.cells[4], span(c.connected_seconds));
    });
  $('connections-more').hidden = !page.next || listed.limit >= longest;
}

// refill makes the children of a node anew if they are about something else than before.
function refill(node, about, make) {
  const text = JSON.stringify(about);
  if (node.dataset.about === text) return;
  node.dataset.about = text;
  node.replaceChildren(...make());
}

// One key or one connection, by the fragment of the address: links can be sent around, and the back button works.

const detail = {kind: '', name: '', limit: 100};

function route() {
  const [, kind, name] = /^#(key|connection)=(.+)$/.exec(location.hash) ?? [];
  Object.assign(detail, {kind: kind ?? '', name: '', limit: 100});
  $('detail').hidden = !kind;
  if (!kind) return;
  try {
    detail.name = decodeURIComponent(name);
  } catch {
    detail.name = name;
  }
  write($('detail-title'), (kind === 'key' ? 'Key ' : 'Connection ') + detail.name);
  for (const id of ['facts', 'holds']) $(id).replaceChildren();
  delete $('facts').dataset.about;
  $('queue').tBodies[0].replaceChildren();
  for (const id of ['queue', 'queue-more', 'detail-text']) $(id).hidden = true;
  $('detail').scrollIntoView({block: 'nearest'});
  $('detail-title').focus({preventScroll: true});
  refresh(parts.detail);
}

async function askDetail() {
  const name = encodeURIComponent(detail.name);
  try {
    return await call(detail.kind === 'key' ? `keys/${name}?queue=${detail.limit}` : 'connections/' + name);
  } catch (failure) {
    if (failure.status !== 404 && failure.status !== 400) throw failure;
    return null;
  }
}

function showDetail(it) {
  $('facts').hidden = !it;
  $('detail-text').hidden = !!it;
  if (it) {
    (detail.kind === 'key' ? showKey : showConnection)(it);
    return;
  }
  write($('detail-text'), detail.kind === 'key' ? 'Nobody holds this key now.' : 'There is no such connection now.');
  for (const id of ['queue', 'queue-more']) $(id).hidden = true;
  $('holds').replaceChildren();
}

function facts(about, list) {
  refill($('facts'), about, () => list.map(([name, ...children]) =>
    element('div', {}, element('dt', {}, name), element('dd', {}, ...children))));
}

function showKey(key) {
  const holder = key.holder, held = element('span', {id: 'held-for'}), line = element('span', {id: 'in-line'});
  facts(['key', key.key, holder, key.since], [
    ['held by', connectionLink(holder)], ['for', held], ['since', clock.format(new Date(key.since))],
    ['waiting', line], ['', kickButton(holder)],
  ]);
  write($('held-for'), span(key.held_seconds));
  write($('in-line'), grouped.format(key.waiters));
  const queue = key.queue ?? [];
  rows($('queue'), queue.map((waiter, i) => ({place: i + 1, ...waiter})), waiter => waiter.connection,
    waiter => [element('td'), cell('', connectionLink(waiter)), number('has waited'), number('gives up in'),
      element('td', {class: 'act'}, kickButton(waiter))],
    (row, waiter) => {
      write(row.cells[0], String(waiter.place));
      write(row.cells[2], span(waiter.waited_seconds));
      write(row.cells[3], span(waiter.timeout_seconds - waiter.waited_seconds));
    });
  $('queue-more').hidden = key.waiters <= queue.length || detail.limit >= longest;
}

function showConnection(c) {
  const waited = element('span', {id: 'waited', class: 'quiet'}), connected = element('span', {id: 'connected'});
  facts(['connection', c.connection, c.state, c.held, c.waits_for], [
    ['address', c.address], ['connected', connected], ['state', element('span', {class: 'state ' + c.state}, c.state)],
    ['loop', String(c.loop)], ['holds', several(c.held, 'key')],
    ...c.waits_for ? [['waits for', keyLink(c.waits_for), ' ', waited]] : [], ['', kickButton(c)],
  ]);
  write($('connected'), span(c.connected_seconds));
  if (c.waits_for) write($('waited'), span(c.waited_seconds));
  refill($('holds'), [c.connection, ...c.holds ?? []], () => (c.holds ?? []).map(key => element('li', {}, keyLink(key))));
}

// Deadlocks.

function showDeadlocks({cycles, found, broken, breaking}) {
  cycles ??= [];
  $('deadlocks').classList.toggle('stand', cycles.length > 0);
  const stand = cycles.length === 0 ? 'None stands.' : cycles.length === 1 ? 'One stands.' : grouped.format(cycles.length) + ' stand.';
  write($('deadlocks-text'), `${stand} ${grouped.format(found)} found and ${grouped.format(broken)} broken since the start; ` +
    (breaking ? 'the server breaks them.' : 'the server does not break them: kick a connection, or wait for a timeout.'));
  refill($('cycles'), cycles.map(cycle => [cycle.id, ...cycle.waits.map(wait => wait.connection)]),
    () => cycles.slice(0, 20).map(cycleOf));
  for (const cycle of cycles.slice(0, 20)) {
    cycle.waits.forEach((wait, i) => write($(`waited-${cycle.id}-${i}`), span(wait.waited_seconds)));
  }
}

function cycleOf(cycle) {
  const list = cycle.waits.map((wait, i) => element('li', {},
    element('span', {}, connectionLink(wait), ' has waited ', element('b', {id: `waited-${cycle.id}-${i}`}), ' for ',
      keyLink(wait.waits_for, 40), ', which #' + wait.held_by + ' holds'),
    kickButton(wait)));
  const text = element('div', {}, element('h3', {}, `Deadlock ${cycle.id}, since ` + clock.format(new Date(cycle.found))), element('ol', {}, ...list));
  return element('div', {class: 'cycle'}, ring(cycle), text);
}

// A cycle as a ring: each connection points to the one that holds the key it waits for. The list beside it says the same
// in words; of a long cycle it alone has everything.
function ring(cycle) {
  const most = 10, waits = cycle.waits.slice(0, most), n = waits.length;
  const cx = 170, cy = 112, radius = n < 5 ? 64 : 76;
  const at = (angle, r = radius) => [cx + r * Math.sin(angle), cy - r * Math.cos(angle)];
  const names = waits.map(wait => cut('#' + wait.connection, 9));
  const width = i => Math.max(34, 14 + 7 * names[i].length), height = 24;
  // gap is the angle that a node takes of the ring to either side: more where the ring runs along its width.
  const gap = i => (5 + Math.abs(Math.cos(i * turn)) * width(i) / 2 + Math.abs(Math.sin(i * turn)) * height / 2) / radius;
  const turn = 2 * Math.PI / n;
  const picture = drawn('svg', {viewBox: '0 0 340 224', role: 'img', 'aria-label': `A ring of ${several(cycle.waits.length, 'connection')}, each waiting for the next`});
  waits.forEach((wait, i) => {
    const from = i * turn + gap(i), to = (i + 1) * turn - gap((i + 1) % n), middle = (from + to) / 2;
    const [fx, fy] = at(from), [x, y] = at(to), [lx, ly] = at(middle, radius + 12);
    const side = Math.sin(middle);
    picture.append(
      drawn('path', {class: 'arc', d: `M${fx} ${fy}A${radius} ${radius} 0 ${to - from > Math.PI ? 1 : 0} 1 ${x} ${y}`}),
      drawn('path', {class: 'tip', d: 'M2 0L-7 -4.5L-7 4.5Z', transform: `translate(${x} ${y}) rotate(${to * 180 / Math.PI - 3})`}),
      drawn('text', {class: 'label', x: lx, y: ly, 'text-anchor': side > 0.3 ? 'start' : side < -0.3 ? 'end' : 'middle'}, cut(wait.waits_for, 11)));
  });
  names.forEach((name, i) => {
    const [x, y] = at(i * turn);
    picture.append(
      drawn('rect', {class: 'node', x: x - width(i) / 2, y: y - height / 2, width: width(i), height, rx: height / 2}),
      drawn('text', {class: 'id', x, y}, name));
  });
  if (cycle.waits.length > most) picture.append(drawn('text', {class: 'id', x: cx, y: cy}, `${most} of ${cycle.waits.length}`));
  return picture;
}

// Kick.

async function askToKick(id) {
  let c;
  try {
    c = await call('connections/' + id);
  } catch (failure) {
    report(failure.status === 404 ? new Failure(404, `Connection ${id} is gone already.`) : failure);
    return;
  }
  const keys = (c.holds ?? []).slice(0, 5).map(key => cut(key, 30)).join(', ') + (c.held > 5 ? ' …' : '');
  write($('kick-title'), `Kick connection ${id}?`);
  write($('kick-who'), `${c.address}, connected for ${span(c.connected_seconds)}`);
  write($('kick-text'), 'This closes the connection. ' +
    (c.held ? `It frees ${several(c.held, 'key')} (${keys}): the first in ${c.held === 1 ? 'its queue' : 'the queue of each'} gets it.` : 'It holds no key.') +
    (c.waits_for ? ` It leaves the queue of ${cut(c.waits_for, 30)}.` : ''));
  write($('kick-note'), c.held ? 'The client learns of it only when it next looks at its connection. Until then it may believe that it holds what it has lost.' : '');
  $('kick').returnValue = '';
  $('kick').onclose = async () => {
    if ($('kick').returnValue !== 'kick') return;
    try {
      await call(`connections/${id}/kick`, 'POST');
      say(`Connection ${id} is closed` + (c.held ? `, ${several(c.held, 'key')} freed.` : '.'));
      await lists();
    } catch (failure) {
      report(failure);
    }
  };
  $('kick').showModal();
}

let silence;

function say(text) {
  write($('said'), text);
  clearTimeout(silence);
  silence = setTimeout(() => write($('said'), ''), 6000);
}

function report(failure) {
  if (failure.status === 401) askForToken();
  else say(failure.message);
}

// The token is kept as long as the tab.

function askForToken() {
  if ($('token').open) return;
  clearTimeout(timer);
  setHealth('', 'token needed');
  const refused = sessionStorage.getItem('token') !== null;
  write($('token-text'), refused ? 'The server did not take that token.' : 'The server wants the token from its --admin-token-file.');
  $('token-input').value = '';
  $('token').onclose = () => {
    if ($('token-input').value) sessionStorage.setItem('token', $('token-input').value.trim());
    $('token-input').value = '';
    turn();
  };
  $('token').showModal();
}

// Turns. The status is asked for every second. Lists may cost the server more: they come every two seconds, and more
// rarely if their answers take long.

const parts = {
  deadlocks: part(() => call('deadlocks'), showDeadlocks),
  hot: part(() => before?.waiters ? call('keys?order=waiters&limit=10') : {keys: []}, showHot),
  long: part(() => before?.waiters ? call('keys?order=wait&limit=10') : {keys: []}, showLong),
  detail: part(askDetail, showDetail),
  found: part(() => call('keys' + parameters({prefix: $('prefix').value.trim(), order: $('order').value, limit: found.limit})), showFound),
  connections: part(() => call('connections' + parameters({
    address: $('address').value.trim(), holding: $('holding').checked, waiting: $('waiting').checked, limit: listed.limit,
  })), showConnections),
};

const inView = new Set();
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) entry.isIntersecting ? inView.add(entry.target.id) : inView.delete(entry.target.id);
});
watcher.observe($('keys-section'));
watcher.observe($('connections-section'));

let timer, listsAfter = 0, failures = 0, turning = false;

function refresh(p) {
  p().catch(report);
}

async function lists() {
  const began = performance.now();
  await Promise.all([
    parts.deadlocks(), parts.hot(), parts.long(),
    detail.kind && parts.detail(),
    found.limit && inView.has('keys-section') && parts.found(),
    (inView.has('connections-section') || !$('connections-text').textContent) && parts.connections(),
  ]);
  const end = performance.now();
  listsAfter = end + Math.max(1900, 10 * (end - began));
}

async function turn() {
  clearTimeout(timer);
  if (turning) return;
  turning = true;
  let pause = 1000;
  try {
    showStatus(await call('status'));
    if (performance.now() >= listsAfter) await lists();
    failures = 0;
    setHealth('good', 'serving');
    $('trouble').hidden = true;
    document.querySelector('main').classList.remove('stale');
  } catch (failure) {
    if (failure.status === 401) {
      turning = false;
      askForToken();
      return;
    }
    pause = Math.min(1000 * 2 ** failures++, 15000);
    setHealth('bad', 'no answer');
    write($('trouble'), (failure.status ? 'The server answers with an error: ' + failure.message + '. ' : 'The server does not answer. ') +
      'What is shown is old; trying again, at most every 15 seconds.');
    $('trouble').hidden = false;
    document.querySelector('main').classList.add('stale');
  }
  turning = false;
  if (!document.hidden) timer = setTimeout(turn, pause);
}

function setHealth(look, text) {
  $('health').className = look;
  write($('health'), text);
}

// What the user does.

function later(f, milliseconds) {
  let waiting;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(f, milliseconds);
  };
}

function find() {
  found.limit = 20;
  refresh(parts.found);
}

function filter() {
  listed.limit = 20;
  refresh(parts.connections);
}

$('prefix').addEventListener('input', later(find, 200));
$('order').addEventListener('change', find);
$('search').addEventListener('submit', async event => {
  event.preventDefault();
  const key = $('prefix').value.trim();
  find();
  if (key && await call('keys/' + encodeURIComponent(key) + '?queue=0').catch(() => null)) location.hash = 'key=' + encodeURIComponent(key);
});
$('address').addEventListener('input', later(filter, 200));
for (const id of ['holding', 'waiting']) $(id).addEventListener('change', filter);
$('filter').addEventListener('submit', event => event.preventDefault());

function more(limited, p) {
  return () => {
    limited.limit = Math.min(limited.limit * 5, longest);
    refresh(p);
  };
}
$('found-more').addEventListener('click', more(found, parts.found));
$('connections-more').addEventListener('click', more(listed, parts.connections));
$('queue-more').addEventListener('click', more(detail, parts.detail));

$('close').addEventListener('click', event => {
  event.preventDefault();
  history.pushState(null, '', location.pathname);
  route();
});
addEventListener('hashchange', route);
addEventListener('popstate', route);
document.addEventListener('visibilitychange', () => document.hidden ? clearTimeout(timer) : turn());

route();
turn();

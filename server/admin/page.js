// What is shown, and when it is asked for.

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

const bar = () => element('span', {class: 'bar'}, element('i'));

// showWaited shows the keys that somebody waits for, with a bar for what they are ordered by.
function showWaited(id, label, measure, tell) {
  return ({keys}) => {
    const waited = keys.filter(key => key.waiters > 0);
    const most = Math.max(...waited.map(measure), 0.001);
    rows($(id), waited, key => key.key,
      keyRow(() => [build(number(label), {}, [element('span'), bar()]), cell('held by'), number('for')]),
      (row, key) => {
        write(row.cells[1].firstChild, tell(measure(key)));
        row.querySelector('i').style.width = measure(key) / most * 100 + '%';
        connectionCell(row.cells[2], key.holder);
        write(row.cells[3], span(key.held_seconds));
      });
    $(id + '-empty').hidden = waited.length > 0;
  };
}

const showHot = showWaited('hot', 'waiting', key => key.waiters, n => grouped.format(n));
const showLong = showWaited('long', 'waits for', key => key.longest_wait_seconds, span);

function showFound(page) {
  write($('found-text'), page.matching ? several(page.matching, 'key') + (page.matching === 1 ? ' is held.' : ' are held.') : 'No such key is held.');
  rows($('found'), page.keys, key => key.key,
    keyRow(() => [number('waiting'), number('longest wait'), cell('held by'), number('for')]),
    (row, key) => {
      write(row.cells[1], grouped.format(key.waiters));
      write(row.cells[2], key.waiters ? span(key.longest_wait_seconds) : '–');
      connectionCell(row.cells[3], key.holder);
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
    c => [cell(''), cell(''), cell('holds'), cell('waits for'), number('connected'),
      element('td', {class: 'act'}, kickButton(c))],
    (row, c) => {
      connectionCell(row.cells[0], c, true);
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

// One key or one connection, by the fragment of the address: links can be sent around, and the back button works.

const detail = {kind: '', name: '', limit: 100};

function route() {
  const [, kind, name] = /^#(key|connection)=(.+)$/.exec(location.hash) ?? [];
  Object.assign(detail, {kind: kind ?? '', name: '', limit: 100});
  // What was asked for before must not lead away from here.
  parts.open.forget();
  parts.kick.forget();
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
  if (!detail.kind) return; // closed meanwhile
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
  facts(['key', key.key, holder, key.since, key.token], [
    ['held by', connectionLink(holder)], ...peerFacts(holder, holder.name), ['for', held], ['since', clock.format(new Date(key.since))],
    ['token', key.token], ['waiting', line], ['', kickButton(holder)],
  ]);
  write($('held-for'), span(key.held_seconds));
  write($('in-line'), grouped.format(key.waiters));
  const queue = key.queue ?? [];
  rows($('queue'), queue.map((waiter, i) => ({place: i + 1, ...waiter})), waiter => waiter.connection,
    waiter => [element('td'), cell(''), number('has waited'), number('gives up in'),
      element('td', {class: 'act'}, kickButton(waiter))],
    (row, waiter) => {
      write(row.cells[0], String(waiter.place));
      connectionCell(row.cells[1], waiter, true);
      write(row.cells[2], span(waiter.waited_seconds));
      write(row.cells[3], span(waiter.timeout_seconds - waiter.waited_seconds));
    });
  $('queue-more').hidden = key.waiters <= queue.length || detail.limit >= longest;
}

// peerFacts are the address of a connection, unless a link shows it already, and its owner.
function peerFacts({address, owner}, wantsAddress) {
  return [...wantsAddress ? [['address', address]] : [], ...owner ? [['owner', owner]] : []];
}

function showConnection(c) {
  const waited = element('span', {id: 'waited', class: 'quiet'}), connected = element('span', {id: 'connected'});
  facts(['connection', c.connection, c.name, c.owner, c.state, c.held, c.waits_for], [
    ...c.name ? [['name', c.name]] : [], ...peerFacts(c, true), ['connected', connected], ['state', element('span', {class: 'state ' + c.state}, c.state)],
    ['loop', String(c.loop)], ['holds', several(c.held, 'key')],
    ...c.waits_for ? [['waits for', keyLink(c.waits_for), ' ', waited]] : [], ['', kickButton(c)],
  ]);
  write($('connected'), span(c.connected_seconds));
  if (c.waits_for) write($('waited'), span(c.waited_seconds));
  refill($('holds'), [c.connection, ...c.holds ?? []], () => (c.holds ?? []).map(key => element('li', {}, keyLink(key))));
}

// Kick.

async function askBeforeKick(id) {
  try {
    return await call('connections/' + id);
  } catch (failure) {
    throw failure.status === 404 ? new Failure(404, `Connection ${id} is gone already.`) : failure;
  }
}

function showKick(c, id) {
  const keys = (c.holds ?? []).slice(0, 5).map(key => cut(key, 30)).join(', ') + (c.held > 5 ? ' …' : '');
  write($('kick-title'), `Kick connection ${id}?`);
  write($('kick-who'), [c.name, c.address, c.owner && 'owner ' + c.owner, 'connected for ' + span(c.connected_seconds)].filter(Boolean).join(', '));
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

// Turns. Deadlocks are asked for twice a second, so that one is seen within a second of its beginning, and the status in
// every second turn. Lists may cost the server more: they come every two seconds, and more rarely if their answers take
// long.

const parts = {
  deadlocks: latest(() => call('deadlocks'), showDeadlocks),
  hot: latest(() => before?.waiters ? call('keys?order=waiters&limit=10') : {keys: []}, showHot),
  long: latest(() => before?.waiters ? call('keys?order=wait&limit=10') : {keys: []}, showLong),
  detail: latest(askDetail, showDetail),
  found: latest(() => call('keys' + parameters({prefix: $('prefix').value.trim(), order: $('order').value, limit: found.limit})), showFound),
  connections: latest(() => call('connections' + parameters({
    address: $('address').value.trim(), holding: $('holding').checked, waiting: $('waiting').checked, limit: listed.limit,
  })), showConnections),
  kick: latest(askBeforeKick, showKick),
  open: latest(askWhetherHeld, openKey),
};

const inView = new Set();
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) entry.isIntersecting ? inView.add(entry.target.id) : inView.delete(entry.target.id);
});
watcher.observe($('keys-section'));
watcher.observe($('connections-section'));

let timer, turns = 0, listsAfter = 0, failures = 0, turning = false;

function refresh(part, ...about) {
  part(...about).catch(report);
}

async function lists() {
  const began = performance.now();
  await Promise.all([
    parts.hot(), parts.long(),
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
  let pause = 500;
  try {
    if (turns++ % 2 === 0 || failures) {
      showStatus(await call('status'));
      if (performance.now() >= listsAfter) await lists();
    }
    await parts.deadlocks();
    if ($('main').hidden) { // shown when there is everything, so that nothing moves under a finger
      $('main').hidden = false;
      route();
    }
    failures = 0;
    setHealth('good', 'serving');
    $('trouble').hidden = true;
    $('main').classList.remove('stale');
  } catch (failure) {
    if (failure.status === 401) {
      turning = false;
      askForToken();
      return;
    }
    pause = Math.min(1000 * 2 ** failures++, 15000);
    setHealth('bad', 'no answer');
    write($('trouble'), (failure.status ? 'The server answers with an error: ' + failure.message + '. ' : 'The server does not answer. ') +
      'What is below is old; the next try comes within 15 seconds.');
    $('trouble').hidden = false;
    $('main').classList.add('stale');
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

// What is wanted changes at once; only the question waits until no more is typed. So a question that comes late asks for
// what is wanted then: it does not undo "More keys".

const findSoon = later(() => refresh(parts.found), 200), filterSoon = later(() => refresh(parts.connections), 200);

function find(ask) {
  found.limit = 20;
  parts.open.forget();
  ask();
}

function filter(ask) {
  listed.limit = 20;
  ask();
}

function askWhetherHeld(key) {
  return call('keys/' + encodeURIComponent(key) + '?queue=0').catch(() => null); // what is wrong the search says
}

function openKey(held, key) {
  if (held) location.hash = 'key=' + encodeURIComponent(key);
}

$('prefix').addEventListener('input', () => find(findSoon));
$('order').addEventListener('change', () => find(() => refresh(parts.found)));
$('search').addEventListener('submit', event => {
  event.preventDefault();
  find(() => refresh(parts.found));
  const key = $('prefix').value.trim();
  if (key) refresh(parts.open, key);
});
$('address').addEventListener('input', () => filter(filterSoon));
for (const id of ['holding', 'waiting']) $(id).addEventListener('change', () => filter(() => refresh(parts.connections)));
$('filter').addEventListener('submit', event => event.preventDefault());

function more(limited, part) {
  return () => {
    limited.limit = Math.min(limited.limit * 5, longest);
    refresh(part);
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
document.addEventListener('visibilitychange', () => document.hidden ? clearTimeout(timer) : turn());

turn();

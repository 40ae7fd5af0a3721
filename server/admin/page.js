// The tables, the details, the dialogs, and the polling.

// listening says where the daemon listens: at its first address, and at how many more.
function listening({address, listen}) {
  const more = (listen ?? []).length - 1;
  return more > 0 ? `${address} and ${plural(more, 'more address', 'more addresses')}` : address;
}

function showStatus(status) {
  setText($('about'), [
    status.version, 'listening on ' + listening(status), 'up ' + duration(status.uptime_seconds), plural(status.loops, 'loop'),
    grouped.format(status.connections) + ' of at most ' + plural(status.max_connections, 'connection'),
    mebibytes(status.memory_bytes) + ' of at most ' + mebibytes(status.memory_limit_bytes) + ' MiB of memory',
  ].join(' · '));
  const c = status.counters;
  const counts = [
    ...c.commands.map(count => [count.kind + ': ' + count.outcome.replaceAll('_', ' '), count.count]),
    ['connections accepted', c.accepted], ...countsOf('refused: ', c.refused), ...countsOf('accept error: ', c.accept_errors),
    ['grants', c.grants], ['timeouts', c.timeouts],
    ...countsOf('disconnected: ', c.disconnects), ...countsOf('limit hit: ', c.limit_hits),
    ['connections moved', c.moves], ['messages between loops', c.messages], ['wake-ups', c.wake_ups],
    ['deadlocks found', c.deadlocks_found], ['deadlocks broken', c.deadlocks_broken],
  ];
  $('counts').replaceChildren(...counts.map(([name, n]) =>
    element('div', {}, element('dt', {}, name), element('dd', {}, grouped.format(n)))));
  showDrain(status);
  addSample(status);
}

const mebibytes = bytes => grouped.format(Math.ceil(bytes / (1 << 20)));

const countsOf = (label, counts) => Object.entries(counts ?? {}).map(([name, n]) => [label + name.replaceAll('_', ' '), n]);

// A drain: the server serves those who hold or wait for a key, nobody else, and ends.

function showDrain({drain, held_keys, waiters}) {
  $('drain').hidden = !drain;
  if (!drain) return;
  setText($('drain-text'), `Since ${clock.format(new Date(drain.since))}. ${plural(held_keys, 'key is', 'keys are')} held, ` +
    `and ${plural(waiters, 'connection waits', 'connections wait')}. The daemon ends when nobody holds a key, ` +
    `in ${duration(drain.seconds_left)} at the latest. New connections are refused.`);
}

function showHeld({keys}) {
  updateRows($('held'), keys, key => key.key,
    keyRow(() => [numberCell('waiters'), cell('held by'), numberCell('held for')]),
    (row, key) => {
      setText(row.cells[1], grouped.format(key.waiters));
      connectionCell(row.cells[2], key.holder);
      setText(row.cells[3], duration(key.held_seconds));
    });
}

// Tables of keys.

const cell = (label, ...children) => element('td', label ? {'data-label': label} : {}, ...children);
const numberCell = label => element('td', {class: 'n', 'data-label': label});

function keyRow(cells) {
  return key => [cell('', keyLink(key.key)), ...cells().flat()];
}

const bar = () => element('span', {class: 'bar'}, element('i'));

// showWaited returns what shows the keys that have waiters, with a bar for the number by which they are sorted.
function showWaited(id, label, measure, format) {
  return ({keys}) => {
    const waited = keys.filter(key => key.waiters > 0);
    const most = Math.max(...waited.map(measure), 0.001);
    updateRows($(id), waited, key => key.key,
      keyRow(() => [build(numberCell(label), {}, [element('span'), bar()]), cell('held by'), numberCell('held for')]),
      (row, key) => {
        setText(row.cells[1].firstChild, format(measure(key)));
        row.querySelector('i').style.width = measure(key) / most * 100 + '%';
        connectionCell(row.cells[2], key.holder);
        setText(row.cells[3], duration(key.held_seconds));
      });
    $(id + '-empty').hidden = waited.length > 0;
  };
}

const showHot = showWaited('hot', 'waiters', key => key.waiters, n => grouped.format(n));
const showLong = showWaited('long', 'longest wait', key => key.longest_wait_seconds, duration);

function showFound(page) {
  setText($('found-text'), page.matching ? plural(page.matching, 'key is', 'keys are') + ' held.' : 'No such key is held.');
  updateRows($('found'), page.keys, key => key.key,
    keyRow(() => [numberCell('waiters'), numberCell('longest wait'), cell('held by'), numberCell('held for')]),
    (row, key) => {
      setText(row.cells[1], grouped.format(key.waiters));
      setText(row.cells[2], key.waiters ? duration(key.longest_wait_seconds) : '–');
      connectionCell(row.cells[3], key.holder);
      setText(row.cells[4], duration(key.held_seconds));
    });
  $('found-more').hidden = !page.next || found.limit >= maxLimit;
}

const maxLimit = 1000; // of entries that the server lists
const found = {limit: 0}; // 0 until the first search
const listed = {limit: 20};

// Connections.

function showConnections(page) {
  setText($('connections-text'), page.matching ? plural(page.matching, 'connection') + '.' : 'No such connection.');
  updateRows($('connections'), page.connections, c => c.connection,
    c => [cell(''), cell(''), cell('holds'), cell('waits for'), numberCell('connected'),
      element('td', {class: 'act'}, kickButton(c))],
    (row, c) => {
      connectionCell(row.cells[0], c, true);
      refill(row.cells[1], c.state, () => [element('span', {class: 'state ' + c.state}, c.state)]);
      const holds = (c.holds ?? []).slice(0, 3);
      refill(row.cells[2], [c.held, ...holds], () => c.held === 0 ? []
        : [plural(c.held, 'key') + ': ', ...holds.flatMap((key, i) => [i ? ', ' : '', keyLink(key, 20)]),
          c.held > holds.length ? ' …' : '']);
      refill(row.cells[3], [c.waits_for], () => c.waits_for ? [keyLink(c.waits_for, 20), element('span', {class: 'quiet'})] : []);
      if (c.waits_for) setText(row.cells[3].lastChild, ' ' + duration(c.waited_seconds));
      setText(row.cells[4], duration(c.connected_seconds));
    });
  $('connections-more').hidden = !page.next || listed.limit >= maxLimit;
}

// One key or one connection. Its name is in the fragment of the address, so that links can be shared and the back button
// works.

const detail = {kind: '', name: '', limit: 100};

function route() {
  const [, kind, name] = /^#(key|connection)=(.+)$/.exec(location.hash) ?? [];
  Object.assign(detail, {kind: kind ?? '', name: '', limit: 100});
  // The answer to an earlier question must not lead away from here.
  views.open.forget();
  views.kick.forget();
  $('detail').hidden = !kind;
  if (!kind) return;
  try {
    detail.name = decodeURIComponent(name);
  } catch {
    detail.name = name;
  }
  setText($('detail-title'), (kind === 'key' ? 'Key ' : 'Connection ') + detail.name);
  for (const id of ['facts', 'holds']) $(id).replaceChildren();
  delete $('facts').dataset.about;
  $('queue').tBodies[0].replaceChildren();
  for (const id of ['queue', 'queue-more', 'detail-text']) $(id).hidden = true;
  $('detail').scrollIntoView({block: 'nearest'});
  $('detail-title').focus({preventScroll: true});
  refresh(views.detail);
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
  if (!detail.kind) return; // it was closed in the meantime
  $('facts').hidden = !it;
  $('detail-text').hidden = !!it;
  if (it) {
    (detail.kind === 'key' ? showKey : showConnection)(it);
    return;
  }
  setText($('detail-text'), detail.kind === 'key' ? 'Nobody holds this key now.' : 'There is no connection with this number now.');
  for (const id of ['queue', 'queue-more']) $(id).hidden = true;
  $('holds').replaceChildren();
}

function facts(about, list) {
  refill($('facts'), about, () => list.map(([name, ...children]) =>
    element('div', {}, element('dt', {}, name), element('dd', {}, ...children))));
}

function showKey(key) {
  const holder = key.holder, held = element('span', {id: 'held-for'}), waiters = element('span', {id: 'key-waiters'});
  facts(['key', key.key, holder, key.since, key.token], [
    ['held by', connectionLink(holder)], ...peerFacts(holder, holder.name, holder.name || holder.identity), ['held for', held],
    ['since', clock.format(new Date(key.since))], ['token', key.token], ['waiters', waiters], ['', kickButton(holder)],
  ]);
  setText($('held-for'), duration(key.held_seconds));
  setText($('key-waiters'), grouped.format(key.waiters));
  const queue = key.queue ?? [];
  updateRows($('queue'), queue.map((waiter, i) => ({place: i + 1, ...waiter})), waiter => waiter.connection,
    waiter => [element('td'), cell(''), numberCell('waited'), numberCell('times out in'),
      element('td', {class: 'act'}, kickButton(waiter))],
    (row, waiter) => {
      setText(row.cells[0], String(waiter.place));
      connectionCell(row.cells[1], waiter, true);
      setText(row.cells[2], duration(waiter.waited_seconds));
      setText(row.cells[3], duration(waiter.timeout_seconds - waiter.waited_seconds));
    });
  $('queue-more').hidden = key.waiters <= queue.length || detail.limit >= maxLimit;
}

// peerFacts returns the identity and the address of a connection, unless a link shows them already, and its owner.
function peerFacts({identity, address, owner}, wantsIdentity, wantsAddress) {
  return [
    ...identity && wantsIdentity ? [['identity', identity]] : [], ...wantsAddress ? [['address', address]] : [],
    ...owner ? [['owner', owner]] : [],
  ];
}

function showConnection(c) {
  const waited = element('span', {id: 'waited', class: 'quiet'}), connected = element('span', {id: 'connected'});
  facts(['connection', c.connection, c.name, c.owner, c.state, c.held, c.waits_for], [
    ...c.name ? [['name', c.name]] : [], ...peerFacts(c, true, true), ['connected', connected],
    ['state', element('span', {class: 'state ' + c.state}, c.state)],
    ['loop', String(c.loop)], ['holds', plural(c.held, 'key')],
    ...c.waits_for ? [['waits for', keyLink(c.waits_for), ' ', waited]] : [], ['', kickButton(c)],
  ]);
  setText($('connected'), duration(c.connected_seconds));
  if (c.waits_for) setText($('waited'), duration(c.waited_seconds));
  refill($('holds'), [c.connection, ...c.holds ?? []], () => (c.holds ?? []).map(key => element('li', {}, keyLink(key))));
}

// Kick.

async function askBeforeKick(id) {
  try {
    return await call('connections/' + id);
  } catch (failure) {
    throw failure.status === 404 ? new Failure(404, `Connection ${id} is already closed.`) : failure;
  }
}

function showKick(c, id) {
  const keys = (c.holds ?? []).slice(0, 5).map(key => shorten(key, 30)).join(', ') + (c.held > 5 ? ' …' : '');
  const freed = plural(c.held, 'key');
  const who = [c.name, c.identity, c.address, c.owner && 'owner ' + c.owner, 'connected for ' + duration(c.connected_seconds)];
  setText($('kick-title'), `Kick connection ${id}?`);
  setText($('kick-who'), who.filter(Boolean).join(', '));
  setText($('kick-text'), 'This closes the connection. ' +
    (c.held ? `It frees ${freed} (${keys}), ${c.held === 1 ? 'which goes' : 'each of which goes'} to the first waiter.`
      : 'It holds no key.') +
    (c.waits_for ? ` It leaves the queue of ${shorten(c.waits_for, 30)}.` : ''));
  setText($('kick-note'), c.held ? 'The client notices only when it next uses its connection. ' +
    'Until then it may believe that it still holds what it has lost.' : '');
  $('kick').returnValue = '';
  $('kick').onclose = async () => {
    if ($('kick').returnValue !== 'kick') return;
    try {
      await call(`connections/${id}/kick`, 'POST');
      showMessage(`Connection ${id} is closed` + (c.held ? `, ${freed} freed.` : '.'));
      await lists();
    } catch (failure) {
      reportFailure(failure);
    }
  };
  $('kick').showModal();
}

let messageTimer;

function showMessage(text) {
  setText($('message'), text);
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => setText($('message'), ''), 6000);
}

function reportFailure(failure) {
  if (failure.status === 401) askForToken();
  else showMessage(failure.message);
}

// The token is kept until the tab is closed.

function askForToken() {
  if ($('token').open) return;
  clearTimeout(timer);
  setHealth('', 'token needed');
  const refused = sessionStorage.getItem('token') !== null;
  setText($('token-text'), refused ? 'The server refused that token.' : 'Enter the token from the --admin-token-file of the server.');
  $('token-input').value = '';
  $('token').onclose = () => {
    if ($('token-input').value) sessionStorage.setItem('token', $('token-input').value.trim());
    $('token-input').value = '';
    poll();
  };
  $('token').showModal();
}

// Polling. The page asks for deadlocks twice a second, so that it shows one within a second of its beginning, and for the
// status in every second round. Lists may cost the server more: the page asks for them every two seconds, and less often if
// the answers take long. Only one round runs at a time, so the answers for the status come in order.

const views = {
  deadlocks: latest(() => call('deadlocks'), showDeadlocks),
  held: latest(() => before?.drain ? call('keys?order=age&limit=10') : {keys: []}, showHeld),
  hot: latest(() => before?.waiters ? call('keys?order=waiters&limit=10') : {keys: []}, showHot),
  long: latest(() => before?.waiters ? call('keys?order=wait&limit=10') : {keys: []}, showLong),
  detail: latest(askDetail, showDetail),
  found: latest(() => call('keys' + parameters({
    prefix: $('prefix').value.trim(), order: $('order').value, limit: found.limit,
  })), showFound),
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

let timer, rounds = 0, nextLists = 0, failures = 0, polling = false;

function refresh(view, ...about) {
  view(...about).catch(reportFailure);
}

async function lists() {
  const began = performance.now();
  await Promise.all([
    views.held(), views.hot(), views.long(),
    detail.kind && views.detail(),
    found.limit && inView.has('keys-section') && views.found(),
    (inView.has('connections-section') || !$('connections-text').textContent) && views.connections(),
  ]);
  const end = performance.now();
  nextLists = end + Math.max(1900, 10 * (end - began));
}

async function poll() {
  clearTimeout(timer);
  if (polling) return;
  polling = true;
  let pause = 500;
  try {
    if (rounds++ % 2 === 0 || failures) {
      showStatus(await call('status'));
      if (performance.now() >= nextLists) await lists();
    }
    await views.deadlocks();
    if ($('main').hidden) { // it is shown only when complete, so that nothing moves under a finger
      $('main').hidden = false;
      route();
    }
    failures = 0;
    if (before?.drain) setHealth('wait', 'draining');
    else setHealth('good', 'serving');
    $('alert').hidden = true;
    $('main').classList.remove('stale');
  } catch (failure) {
    if (failure.status === 401) {
      polling = false;
      askForToken();
      return;
    }
    pause = Math.min(1000 * 2 ** failures++, 15000);
    setHealth('bad', 'no answer');
    setText($('alert'), (failure.status ? `The server answers with an error: ${failure.message}. ` : 'The server does not answer. ') +
      'What is shown below is out of date; the next attempt follows within 15 seconds.');
    $('alert').hidden = false;
    $('main').classList.add('stale');
  }
  polling = false;
  if (!document.hidden) timer = setTimeout(poll, pause);
}

function setHealth(look, text) {
  $('health').className = look;
  setText($('health'), text);
}

// Input of the user.

// Typing changes what is wanted at once; only the question waits until the typing pauses. It then asks for what is wanted
// by that time, so it does not undo "More keys".

const findSoon = debounce(() => refresh(views.found), 200), filterSoon = debounce(() => refresh(views.connections), 200);

function find(ask) {
  found.limit = 20;
  views.open.forget();
  ask();
}

function filter(ask) {
  listed.limit = 20;
  ask();
}

function askWhetherHeld(key) {
  return call('keys/' + encodeURIComponent(key) + '?queue=0').catch(() => null); // the search reports the failure
}

function openKey(held, key) {
  if (held) location.hash = 'key=' + encodeURIComponent(key);
}

$('prefix').addEventListener('input', () => find(findSoon));
$('order').addEventListener('change', () => find(() => refresh(views.found)));
$('search').addEventListener('submit', event => {
  event.preventDefault();
  find(() => refresh(views.found));
  const key = $('prefix').value.trim();
  if (key) refresh(views.open, key);
});
$('address').addEventListener('input', () => filter(filterSoon));
for (const id of ['holding', 'waiting']) $(id).addEventListener('change', () => filter(() => refresh(views.connections)));
$('filter').addEventListener('submit', event => event.preventDefault());

function more(limited, view) {
  return () => {
    limited.limit = Math.min(limited.limit * 5, maxLimit);
    refresh(view);
  };
}
$('found-more').addEventListener('click', more(found, views.found));
$('connections-more').addEventListener('click', more(listed, views.connections));
$('queue-more').addEventListener('click', more(detail, views.detail));

$('close').addEventListener('click', event => {
  event.preventDefault();
  history.pushState(null, '', location.pathname);
  route();
});
addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => document.hidden ? clearTimeout(timer) : poll());

poll();

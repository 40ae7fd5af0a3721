// One key or one connection. Its name is in the fragment of the address, so that links can be shared and the back button
// works.

const detail = {kind: '', name: '', limit: 100};
let opener = null; // what had the focus before

function route() {
  const [, kind, name] = /^#(key|connection)=(.+)$/.exec(location.hash) ?? [];
  Object.assign(detail, {kind: kind ?? '', name: '', limit: 100});
  Object.assign(past, {events: [], since: null, oldest: null});
  // The answer to an earlier question must not lead away from here.
  for (const view of ['open', 'kick', 'release']) views[view].forget();
  $('detail').hidden = !kind;
  if (!kind) return;
  try {
    detail.name = decodeURIComponent(name);
  } catch {
    detail.name = name;
  }
  setText($('detail-title'), (kind === 'key' ? 'Key ' : 'Connection ') + shorten(detail.name, 80));
  for (const id of ['facts', 'acts', 'holds']) {
    $(id).replaceChildren();
    delete $(id).dataset.about;
  }
  for (const id of ['queue', 'history']) $(id).tBodies[0].replaceChildren();
  for (const id of ['line', 'past', 'queue-more', 'detail-text']) $(id).hidden = true;
  if (!$('detail').contains(document.activeElement)) opener = document.activeElement;
  $('detail').scrollIntoView({block: 'nearest'});
  $('detail-title').focus({preventScroll: true});
  refresh(views.detail);
  refresh(views.past);
}

function closeDetail() {
  history.pushState(null, '', location.pathname);
  route();
  (opener?.isConnected && opener !== document.body ? opener : $('keys-title')).focus();
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
  $('line').hidden = true;
  for (const id of ['acts', 'holds']) {
    $(id).replaceChildren();
    delete $(id).dataset.about;
  }
}

function facts(about, list) {
  refill($('facts'), about, () => list.map(([name, ...children]) =>
    element('div', {}, element('dt', {}, name), element('dd', {}, ...children))));
}

function showKey(key) {
  const {holder, frees_in_seconds: frees} = key, ended = frees !== undefined, known = holder.connection > 0;
  facts(['key', key.key, holder, key.since, key.token, ended], [
    ...key.key.length > 80 ? [['the whole key', element('div', {class: 'whole', tabindex: '0', role: 'region', 'aria-label': 'The whole key'}, key.key)]] : [],
    ...known ? [[ended ? 'held last by' : 'held by', connectionLink(holder)], ...peerFacts(holder, holder.name, holder.name || holder.identity)] : [],
    ...holder.daemon ? [['is at', daemonName(holder) + ': ask there who holds it']] : [],
    ...ended ? [['free in', element('span', {id: 'frees'})]] : [],
    ...known ? [['held for', element('span', {id: 'held-for'})], ['since', instant(key.since)], ['token', key.token]] : [],
    ['waiters', element('span', {id: 'key-waiters'})],
  ]);
  if (ended) setText($('frees'), duration(frees) + (known ? ', since its connection has ended' : ', since somebody may have held it before the start'));
  if (known) setText($('held-for'), duration(key.held_seconds));
  setText($('key-waiters'), grouped.format(key.waiters));
  refill($('acts'), [key.key, holder.connection, ended], () => ended || !known ? []
    : [kickButton('Kick holder', holder), askButton('Release key', () => refresh(views.release, key.key))]);
  const queue = key.queue ?? [];
  updateRows($('queue'), queue.map((waiter, i) => ({place: i + 1, ...waiter})), waiter => waiter.connection || 'place ' + waiter.place,
    () => [element('td'), cell(''), numberCell('waited'), numberCell('gives up')],
    (row, waiter) => {
      setText(row.cells[0], String(waiter.place));
      connectionCell(row.cells[1], waiter, true);
      setText(row.cells[2], duration(waiter.waited_seconds));
      setText(row.cells[3], waiter.daemon ? '–' : until(waiter.timeout_seconds, waiter.waited_seconds));
    });
  $('line').hidden = queue.length === 0;
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
  facts(['connection', c.connection, c.name, c.owner, c.state, c.held, c.waits_for], [
    ...c.name ? [['name', c.name]] : [], ...peerFacts(c, true, true), ['connected', element('span', {id: 'connected'})],
    ['state', element('span', {class: 'state ' + c.state}, c.state)],
    ['loop', String(c.loop)], ['holds', plural(c.held, 'key')],
    ...c.waits_for ? [['waits for', keyLink(c.waits_for)], ['waited', element('span', {id: 'waited'})]] : [],
  ]);
  setText($('connected'), duration(c.connected_seconds));
  if (c.waits_for) setText($('waited'), duration(c.waited_seconds));
  refill($('acts'), [c.connection], () => [kickButton('Kick', c)]);
  refill($('holds'), [c.connection, ...c.holds ?? []], () => (c.holds ?? []).map(key => element('li', {}, keyLink(key))));
}

// What has happened to it. The first question gets the latest events, each later one those since. A server that keeps none
// says so once.

const past = {events: [], since: null, oldest: null, none: false};
const maxPast = 50; // events

async function askPast() {
  if (past.none) return null;
  try {
    return await call('events' + parameters({[detail.kind]: detail.name, since: past.since ?? '', limit: maxPast}));
  } catch (failure) {
    if (failure.status === 404) past.none = true;
    else if (failure.status !== 400) throw failure; // 400: it is no number of a connection
    return null;
  }
}

function showPast(page) {
  if (!detail.kind || !page) return;
  if (page.restarted) Object.assign(past, {events: [], oldest: null});
  past.oldest ??= page.oldest; // what the server forgets later is still here
  past.events = [...page.events.toReversed(), ...past.events].slice(0, maxPast);
  past.since = page.next;
  $('past').hidden = false;
  const kept = past.oldest ? 'The daemon remembers what has happened since ' + instant(past.oldest) + '.' : '';
  setText($('past-text'), past.events.length ? kept : 'Nothing that the daemon remembers. ' + kept);
  updateRows($('history'), past.events, event => event.seq,
    event => [cell(''), cell('', ...eventText(event)), cell('')],
    (row, event) => {
      setText(row.cells[0], instant(event.time));
      if (event.connection) connectionCell(row.cells[2], event);
      else setText(row.cells[2], event.address ?? '');
    });
}

const eventWords = {
  granted: 'got the key', released: 'gave it back', lost: 'lost it', timeout: 'gave up', kicked: 'was kicked', deadlock: 'is in a deadlock',
  deadlock_over: 'deadlock over', refused: 'was refused', elsewhere: 'has the key (another daemon)',
};

function eventText(event) {
  const words = eventWords[event.kind] ?? event.kind.replaceAll('_', ' ');
  const rest = [
    event.waited_seconds > 0 && 'waited ' + duration(event.waited_seconds), event.held_seconds > 0 && 'held ' + duration(event.held_seconds),
    event.reason && event.reason !== event.kind && event.reason.replaceAll('_', ' '), event.by && 'by ' + shorten(event.by, 80),
    event.held > 0 && plural(event.held, 'key') + ' freed', event.held_by && 'held by #' + event.held_by,
  ].filter(Boolean).join(', ');
  return [words, ...detail.kind === 'connection' && event.key ? [' ', keyLink(event.key)] : [],
    ...rest ? [element('span', {class: 'quiet rest'}, rest)] : []];
}

// Kicks and releases. Each is asked for before it is done.

async function askBeforeKick(id) {
  try {
    return await call('connections/' + id);
  } catch (failure) {
    throw failure.status === 404 ? new Failure(404, `Connection ${id} is already closed.`) : failure;
  }
}

function showKick(c, id) {
  const keys = (c.holds ?? []).slice(0, 5).map(key => shorten(key, 30)).join(', ') + (c.held > 5 ? ' …' : '');
  const freed = plural(c.held, 'key'), delay = before?.lock_delay_seconds;
  const who = [c.name, c.identity, c.address, c.owner && 'owner ' + c.owner, 'connected for ' + duration(c.connected_seconds)];
  confirmAct({
    title: `Kick connection ${id}?`, who: who.filter(Boolean).join(', '), yes: 'Kick',
    text: 'This closes the connection. ' +
      (c.held ? `It frees ${freed}${keys && ` (${keys})`}, ${c.held === 1 ? 'which goes' : 'each of which goes'} to the first waiter${delay ? ` after ${duration(delay)}` : ''}.`
        : 'It holds no key.') +
      (c.waits_for ? ` It leaves the queue of ${shorten(c.waits_for, 30)}.` : ''),
    note: c.held ? 'The client notices only when it next uses its connection. ' +
      'Until then it may believe that it still holds what it has lost.' : '',
    path: `connections/${id}/kick`, done: `Connection ${id} is closed` + (c.held ? `, ${freed} freed.` : '.'),
  });
}

async function askBeforeRelease(key) {
  try {
    return await call(`keys/${encodeURIComponent(key)}?queue=1`);
  } catch (failure) {
    throw failure.status === 404 ? new Failure(404, 'Nobody holds this key now.') : failure;
  }
}

// showRelease asks whether to take the key from the holder that is named, and from no later one.
function showRelease({key, holder, token, held_seconds: held, waiters, queue}) {
  const name = shorten(key, 40);
  confirmAct({
    title: `Release key ${name}?`, who: `${nameOf(holder)} has held it for ${duration(held)}.`, yes: 'Release',
    text: 'This takes the key from its holder and leaves the connection open. ' +
      (waiters ? `The key goes to the first waiter${queue?.length ? ', ' + nameOf(queue[0]) : ''}.` : 'Nobody waits for it.'),
    note: 'The holder is told only when it unlocks. Until then it may believe that it holds the key.',
    path: `keys/${encodeURIComponent(key)}/release` + parameters({connection: holder.connection, token}), done: `Key ${name} is released.`,
  });
}

function confirmAct({title, who, text, note, yes, path, done}) {
  setText($('act-title'), title);
  setText($('act-who'), who);
  setText($('act-text'), text);
  setText($('act-note'), note);
  setText($('act-yes'), yes);
  $('act').returnValue = '';
  $('act').onclose = async () => {
    if ($('act').returnValue !== 'yes') return;
    try {
      await call(path, 'POST');
      showMessage(done);
      await lists();
    } catch (failure) {
      reportFailure(failure);
    }
  };
  $('act').showModal();
}

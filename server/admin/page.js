// The messages, the token, the polling, and the input of the user.

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
  past: latest(askPast, showPast),
  found: latest(() => call('keys' + parameters({
    contains: $('contains').value.trim(), client: $('holder').value.trim(), order: found.order, limit: found.limit,
  })), showFound),
  connections: latest(() => call('connections' + parameters({
    client: $('client').value.trim(), holding: $('holding').checked, waiting: $('waiting').checked, order: listed.order, limit: listed.limit,
  })), showConnections),
  kick: latest(askBeforeKick, showKick),
  release: latest(askBeforeRelease, showRelease),
  open: latest(askWhetherKnown, openKey),
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
  for (const id of ['found-text', 'connections-text']) $(id).ariaLive = 'off';
  await Promise.all([
    views.held(), views.hot(), views.long(),
    detail.kind && views.detail(), detail.kind && views.past(),
    (inView.has('keys-section') || !$('found-text').textContent) && views.found(),
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
    if (before.drain) setHealth('wait', 'draining');
    else if (outOfTouch(before)) setHealth('bad', 'out of touch');
    else if (before.grants_in_seconds) setHealth('wait', 'grants nothing yet');
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

// setHealth also sets the title of the page, which says what is wrong, and where: it may be one tab of many.
function setHealth(look, text) {
  $('health').className = look;
  setText($('health'), text);
  const alarms = [
    look !== 'good' && text, look !== 'bad' && deadlocks > 0 && plural(deadlocks, 'deadlock'),
    look !== 'bad' && before && memoryUsed(before) >= muchMemory && `memory ${Math.floor(memoryUsed(before) * 100)} %`,
  ].filter(Boolean).join(', ');
  document.title = [alarms && `(${alarms})`, before ? placeOf(before) : location.host, 'dreadlock'].filter(Boolean).join(' ');
}

// Input of the user.

// Typing changes what is wanted at once; only the question waits until the typing pauses. It then asks for what is wanted
// by that time, so it does not undo "More keys".

const findSoon = debounce(() => refresh(views.found), 200), filterSoon = debounce(() => refresh(views.connections), 200);

function find(ask) {
  found.limit = 20;
  $('found-text').ariaLive = 'polite'; // as long as it is the answer to what was typed
  views.open.forget();
  ask();
}

function filter(ask) {
  listed.limit = 20;
  $('connections-text').ariaLive = 'polite';
  ask();
}

// askWhetherKnown asks whether a key is held, or has a history. The search reports failures.
async function askWhetherKnown(key) {
  if (await call('keys/' + encodeURIComponent(key) + '?queue=0').catch(() => null)) return true;
  return !past.none && (await call('events' + parameters({key, limit: 1})).catch(() => null))?.events.length > 0;
}

function openKey(known, key) {
  if (known) location.hash = 'key=' + encodeURIComponent(key);
}

for (const id of ['contains', 'holder']) $(id).addEventListener('input', () => find(findSoon));
$('search').addEventListener('submit', event => {
  event.preventDefault();
  find(() => refresh(views.found));
  const key = $('contains').value.trim();
  if (key) refresh(views.open, key);
});
$('client').addEventListener('input', () => filter(filterSoon));
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

$('close').addEventListener('click', closeDetail);
addEventListener('keydown', event => {
  if (event.key === 'Escape' && event.target.localName !== 'input' && detail.kind && !event.defaultPrevented && !document.querySelector('dialog[open]')) closeDetail();
});
addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => document.hidden ? clearTimeout(timer) : poll());

poll();

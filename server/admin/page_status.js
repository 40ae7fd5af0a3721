// What the daemon is, what it has counted, and the notices.

// listening says where the daemon listens: at its first address, and at how many more.
function listening({address, listen}) {
  const more = (listen ?? []).length - 1;
  return more > 0 ? `${address} and ${plural(more, 'more address', 'more addresses')}` : address;
}

// placeOf says where the daemon is, for people: the machine and the port.
function placeOf({host, address}) {
  const port = /:(\d+)$/.exec(address);
  return (host || location.hostname) + (port ? port[0] : '');
}

// takenOver says by which takeover the process became the daemon.
const takenOver = ({at, from_pid: pid, from_version: version, pause_seconds: pause}) =>
  `took over from process ${pid} (${version}) at ${instant(at)}, in which nobody was answered for ${Math.ceil(pause * 1000)} ms`;

const mebibytes = bytes => grouped.format(Math.ceil(bytes / (1 << 20)));

function showStatus(status) {
  setText($('about'), [
    status.version, 'listening on ' + listening(status), 'up ' + duration(status.uptime_seconds), plural(status.loops, 'loop'),
    grouped.format(status.connections) + ' of at most ' + plural(status.max_connections, 'connection'),
    ...status.memory_limit_bytes ? [mebibytes(status.memory_bytes) + ' of at most ' + mebibytes(status.memory_limit_bytes) + ' MiB of memory'] : [],
    ...status.takeover ? [takenOver(status.takeover)] : [],
  ].join(' · '));
  setText($('place'), placeOf(status));
  showCounters(status);
  showMemory(status);
  showDelay(status);
  showDrain(status);
  showFleet(status);
  showHow(status);
  addSample(status);
}

function showCounters(status) {
  const c = status.counters;
  const counts = [
    ...c.commands.map(count => [count.kind + ': ' + count.outcome.replaceAll('_', ' '), count.count]),
    ['connections accepted', c.accepted], ...countsOf('refused: ', c.refused), ...countsOf('accept error: ', c.accept_errors),
    ['grants', c.grants], ['timeouts', c.timeouts],
    ...countsOf('disconnected: ', c.disconnects), ...countsOf('limit hit: ', c.limit_hits),
    ['connections moved', c.moves], ['messages between loops', c.messages], ['wake-ups', c.wake_ups],
    ['deadlocks found', c.deadlocks_found], ['deadlocks broken', c.deadlocks_broken], ['takeovers failed', c.takeovers_failed],
  ];
  $('counts').replaceChildren(...counts.map(([name, n]) =>
    element('div', {}, element('dt', {}, name), element('dd', {}, grouped.format(n)))));
}

const countsOf = (label, counts) => Object.entries(counts ?? {}).map(([name, n]) => [label + name.replaceAll('_', ' '), n]);

// Notices: what an operator must know, whatever he came for.

const memoryUsed = status => status.memory_limit_bytes ? status.memory_bytes / status.memory_limit_bytes : 0;
const muchMemory = 0.9; // of the limit

function showMemory(status) {
  const used = memoryUsed(status);
  $('memory').hidden = used < muchMemory;
  setText($('memory'), `${Math.floor(used * 100)} % of the memory that clients may take is taken. ` +
    'At the limit the daemon refuses locks and connections; nothing that is held is lost.');
}

// After a start with --lock-delay nothing is granted for a while.
function showDelay({grants_in_seconds: seconds, lock_delay_seconds: delay}) {
  $('delay').hidden = !seconds;
  if (seconds) {
    setText($('delay-text'), `The first key is granted in ${duration(seconds)}: the daemon has just started, and who held a key before ` +
      `has ${delay ? duration(delay) : 'some time'} to notice that it is lost.`);
  }
}

// A drain: the server serves those who hold or wait for a key, nobody else, and ends.
function showDrain({drain, held_keys, waiters}) {
  $('drain').hidden = !drain;
  if (!drain) return;
  setText($('drain-text'), `Since ${instant(drain.since)}. ${plural(held_keys, 'key is', 'keys are')} held, ` +
    `and ${plural(waiters, 'connection waits', 'connections wait')}. The daemon ends when nobody holds a key, ` +
    `in ${duration(drain.seconds_left)} at the latest. New connections are refused.`);
}

// Where nobody holds a key, and anybody can, the page says how to lock one. The first address is taken, and for nc the first without TLS.
function showHow(status) {
  $('how').hidden = status.held_keys > 0 || status.waiters > 0 || status.resting_keys > 0 || status.grants_in_seconds > 0;
  if ($('how').hidden) return;
  const everywhere = /^(\[::\]|0\.0\.0\.0)?(?=:)/; // all addresses of the machine
  const ways = (status.listen ?? []).map(way => /^(?<scheme>(tcp|tls|unix):\/\/)(?<where>[^?]*)/.exec(way)?.groups).filter(Boolean)
    .map(({scheme, where}) => ({scheme, where: where.replace(everywhere, status.host || location.hostname)}));
  const lines = ways.slice(0, 1).map(({scheme, where}) =>
    `dreadlockctl lock hello --server ${scheme.startsWith('tcp') ? '' : scheme}${where} -- sleep 60`);
  const plain = ways.find(({scheme}) => !scheme.startsWith('tls'));
  if (plain) {
    const to = plain.scheme.startsWith('unix') ? '-CU ' + plain.where
      : '-C ' + plain.where.replace(/^\[(.*)\]/, '$1').replace(/:(\d+)$/, ' $1');
    lines.push(`(echo lock hello 5000; sleep 60) | nc ${to}`);
  }
  setText($('how-lines'), lines.join('\n'));
}

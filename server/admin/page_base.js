'use strict';

// Elements. Everything that comes from the server is inserted as text.

const $ = id => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

function svgElement(tag, attributes = {}, ...children) {
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

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// updateRows shows items in the rows of a table. A row stays the same element as long as its item is shown, so that it
// keeps the focus.
function updateRows(table, items, idOf, make, fill) {
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

// refill replaces the children of a node if what they show has changed.
function refill(node, about, make) {
  const text = JSON.stringify(about);
  if (node.dataset.about === text) return;
  node.dataset.about = text;
  node.replaceChildren(...make());
}

// Numbers.

const grouped = new Intl.NumberFormat('en', {maximumFractionDigits: 0});
const compact = new Intl.NumberFormat('en', {notation: 'compact', minimumSignificantDigits: 3, maximumSignificantDigits: 3});

function brief(n) {
  if (n >= 10000) return compact.format(n);
  return n > 0 && n < 10 && !Number.isInteger(n) ? n.toFixed(1) : grouped.format(n);
}

function duration(seconds) {
  if (seconds < 10) return Math.max(seconds, 0).toFixed(1) + ' s';
  const s = Math.floor(seconds), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (m < 1) return s + ' s';
  if (h < 1) return m + ' min ' + s % 60 + ' s';
  if (d < 1) return h + ' h ' + m % 60 + ' min';
  return d + ' d ' + h % 24 + ' h';
}

// instant returns a time as RFC 3339 has it, in the zone of the reader.
function instant(time) {
  const at = new Date(time), offset = -at.getTimezoneOffset(), two = n => String(Math.trunc(n)).padStart(2, '0');
  const zone = offset ? (offset < 0 ? '-' : '+') + two(Math.abs(offset) / 60) + ':' + two(Math.abs(offset) % 60) : 'Z';
  return new Date(at.getTime() + offset * 60000).toISOString().slice(0, 19) + zone;
}

// A timeout of more than a hundred years is that of a client which waits for ever.
const never = 100 * 365 * 86400;

function until(timeout, waited) {
  return timeout > never ? 'never' : 'in ' + duration(timeout - waited);
}

function plural(n, one, many = one + 's') {
  return grouped.format(n) + ' ' + (n === 1 ? one : many);
}

function shorten(text, length) {
  return text.length > length ? text.slice(0, length - 1) + '…' : text;
}

const keyLink = (key, length = 64) =>
  element('a', {class: 'key', href: '#key=' + encodeURIComponent(key), title: shorten(key, 200)}, shorten(key, length));

// nameOf is how a connection is called: by its name, else by its identity, else by its address.
const nameOf = peer => `#${peer.connection} ${shorten(peer.name || peer.identity || peer.address, 48)}`;

const connectionLink = peer => {
  const all = [peer.name, peer.identity, peer.address, peer.owner && 'owner ' + peer.owner].filter(Boolean).join(', ');
  const parts = nameOf(peer).split(/(?<=[:@])/).flatMap(part => [part, element('wbr')]); // where a long name is best broken
  return element('a', {class: 'who', href: '#connection=' + peer.connection, title: all}, ...parts);
};

// daemonName is how another daemon of the fleet is called.
const daemonName = ({daemon, address}) => 'daemon ' + (address || daemon);

// connectionCell shows a connection in a cell, and again when the client takes another name. more is true where there is
// room for the identity, the address and the owner as well. It may be another daemon of the fleet instead.
function connectionCell(cell, {connection, address, identity, name, owner, daemon}, more = false) {
  if (daemon) refill(cell, [daemon, address], () => [daemonName({daemon, address})]);
  else refill(cell, [connection, name, owner], () => {
    const rest = [name && identity && shorten(identity, 40), (name || identity) && address, owner && 'owner ' + shorten(owner, 40)]
      .filter(Boolean).join(', ');
    return [connectionLink({connection, address, identity, name, owner}), ...more && rest ? [element('span', {class: 'quiet rest'}, rest)] : []];
  });
}

// holderCell shows the holder of a key, or the former one of a key that nobody gets yet, and when it is free. Soon after a start
// nobody can say who that was.
function holderCell(cell, {holder, frees_in_seconds: frees}) {
  if (holder.connection || holder.daemon) connectionCell(cell, holder);
  else refill(cell, [0], () => ['nobody']);
  let note = cell.querySelector('.frees');
  if (frees === undefined) note?.remove();
  else {
    if (!note) cell.append(note = element('span', {class: 'frees'}));
    setText(note, (holder.connection ? 'has ended, free in ' : 'free in ') + duration(frees));
  }
}

const heldFor = ({holder, held_seconds: held}) => holder.connection ? duration(held) : '–';

// askButton is a button that asks before it does anything.
const askButton = (text, ask) => element('button', {class: 'kick', type: 'button', onclick: ask}, text);
const kickButton = (text, {connection}) => askButton(text, () => refresh(views.kick, connection));

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
  // This question was asked before the token was entered: ask again with it.
  if (response.status === 401 && token !== sessionStorage.getItem('token')) return call(path, method);
  if (!response.ok) throw new Failure(response.status, body.error ?? 'HTTP ' + response.status);
  return body;
}

function parameters(values) {
  const given = Object.entries(values).filter(([, value]) => value !== '' && value !== false);
  return given.length ? '?' + new URLSearchParams(given) : '';
}

// latest returns a function that asks a question and shows the answer. Answers may come in another order than their
// questions. Only the last question counts: the answer to an older one, or its failure, is dropped, so that an old answer
// never replaces a newer one. forget drops the last question as well.
function latest(ask, show) {
  let last = 0;
  const run = async (...about) => {
    const question = ++last;
    let answer;
    try {
      answer = await ask(...about);
    } catch (failure) {
      if (question === last) throw failure;
      return;
    }
    if (question === last) show(answer, ...about);
  };
  run.forget = () => { last++; };
  return run;
}

// debounce returns a function that calls f when it has not been called for a while.
function debounce(f, milliseconds) {
  let waiting;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(f, milliseconds);
  };
}

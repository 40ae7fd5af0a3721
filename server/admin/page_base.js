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

// refill makes the children of a node anew if they are about something else than before.
function refill(node, about, make) {
  const text = JSON.stringify(about);
  if (node.dataset.about === text) return;
  node.dataset.about = text;
  node.replaceChildren(...make());
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
// connectionLink shows a connection by its name, or by its address if it has none.
const connectionLink = peer => {
  const all = [peer.name, peer.address, peer.owner && 'owner ' + peer.owner].filter(Boolean).join(', ');
  return element('a', {class: 'who', href: '#connection=' + peer.connection, title: all}, `#${peer.connection} ${cut(peer.name || peer.address, 40)}`);
};

// connectionCell shows a connection in a cell, which is made anew when the client takes another name. more is true where
// there is room for the address and the owner as well.
function connectionCell(cell, {connection, address, name, owner}, more = false) {
  refill(cell, [connection, name, owner], () => {
    const rest = [name && address, owner && 'owner ' + cut(owner, 40)].filter(Boolean).join(', ');
    return [connectionLink({connection, address, name, owner}), ...more && rest ? [element('span', {class: 'quiet rest'}, rest)] : []];
  });
}

const kickButton = peer =>
  element('button', {class: 'kick', type: 'button', 'aria-label': 'Kick connection ' + peer.connection, onclick: () => refresh(parts.kick, peer.connection)}, 'kick');

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
  // The token was entered after this question was asked: what is refused is not that token.
  if (response.status === 401 && token !== sessionStorage.getItem('token')) return call(path, method);
  if (!response.ok) throw new Failure(response.status, body.error ?? 'HTTP ' + response.status);
  return body;
}

function parameters(values) {
  const given = Object.entries(values).filter(([, value]) => value !== '' && value !== false);
  return given.length ? '?' + new URLSearchParams(given) : '';
}

// latest returns a function that asks a question and shows the answer. Answers may come in another order than their
// questions: only the last question counts, and the answer or the failure of an older one is dropped. So a new answer is
// never replaced by an old one. forget drops the last question as well.
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

// The tables of keys and of connections.

const maxLimit = 1000; // of entries that the server lists
const found = {limit: 20, order: 'key'};
const listed = {limit: 20, order: 'connection'};

const cell = (label, ...children) => element('td', label ? {'data-label': label} : {}, ...children);
const numberCell = label => element('td', {class: 'n', 'data-label': label});

function keyRow(cells) {
  return key => [cell('', keyLink(key.key)), ...cells().flat()];
}

const bar = () => element('span', {class: 'bar'}, element('i'));

function showHeld({keys}) {
  updateRows($('held'), keys, key => key.key,
    keyRow(() => [numberCell('waiters'), cell('held by'), numberCell('held for')]),
    (row, key) => {
      setText(row.cells[1], grouped.format(key.waiters));
      holderCell(row.cells[2], key);
      setText(row.cells[3], heldFor(key));
    });
}

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
        holderCell(row.cells[2], key);
        setText(row.cells[3], heldFor(key));
      });
    $(id + '-empty').hidden = waited.length > 0;
  };
}

const showHot = showWaited('hot', 'waiters', key => key.waiters, n => grouped.format(n));
const showLong = showWaited('long', 'longest wait', key => key.longest_wait_seconds, duration);

function showFound(page) {
  const sought = $('contains').value.trim() || $('holder').value.trim();
  const held = ['held', ...page.keys.some(key => key.frees_in_seconds) ? ['free soon'] : [],
    ...page.keys.some(key => key.holder.daemon) ? ['at another daemon'] : []].join(', or ');
  setText($('found-text'), page.matching ? `${plural(page.matching, 'key is', 'keys are')} ${held}.` : `No ${sought ? 'such ' : ''}key is held.`);
  showAges(page.ages);
  updateRows($('found'), page.keys, key => key.key,
    keyRow(() => [numberCell('waiters'), numberCell('longest wait'), cell('held by'), numberCell('held for')]),
    (row, key) => {
      setText(row.cells[1], grouped.format(key.waiters));
      setText(row.cells[2], key.waiters ? duration(key.longest_wait_seconds) : '–');
      holderCell(row.cells[3], key);
      setText(row.cells[4], heldFor(key));
    });
  $('found-more').hidden = !page.next || found.limit >= maxLimit;
}

function showConnections(page) {
  const sought = $('client').value.trim() || $('holding').checked || $('waiting').checked;
  setText($('connections-text'), page.matching ? plural(page.matching, 'connection') + '.' : `No ${sought ? 'such ' : ''}connection.`);
  updateRows($('connections'), page.connections, c => c.connection,
    () => [cell(''), cell(''), cell('holds'), cell('waits for'), numberCell('waited'), numberCell('connected')],
    (row, c) => {
      connectionCell(row.cells[0], c, true);
      refill(row.cells[1], c.state, () => [element('span', {class: 'state ' + c.state}, c.state)]);
      holdsCell(row.cells[2], c);
      refill(row.cells[3], [c.waits_for], () => c.waits_for ? [keyLink(c.waits_for)] : []);
      setText(row.cells[4], c.waits_for ? duration(c.waited_seconds) : '');
      setText(row.cells[5], duration(c.connected_seconds));
    });
  $('connections-more').hidden = !page.next || listed.limit >= maxLimit;
}

// holdsCell names the first keys that a connection holds, each on a line of its own, and says how many more there are.
function holdsCell(cell, {held, holds}) {
  const named = (holds ?? []).slice(0, 3), more = held - named.length;
  refill(cell, [held, ...named], () => [
    ...named.flatMap((key, i) => [i ? element('br') : '', keyLink(key)]),
    ...more > 0 ? [element('span', {class: 'quiet rest'}, named.length ? `and ${grouped.format(more)} more` : plural(more, 'key'))] : [],
  ]);
}

// Orders. A head that sorts is a button.

function sortable(table, list, view) {
  const heads = table.querySelectorAll('th[data-order]');
  const show = () => {
    for (const head of heads) {
      if (head.dataset.order !== list.order) head.removeAttribute('aria-sort');
      else head.setAttribute('aria-sort', head === heads[0] ? 'ascending' : 'descending');
    }
  };
  for (const head of heads) {
    const sort = () => {
      Object.assign(list, {order: head.dataset.order, limit: 20});
      show();
      refresh(views[view]);
    };
    head.replaceChildren(element('button', {type: 'button', onclick: sort}, head.textContent));
  }
  show();
}

sortable($('found'), found, 'found');
sortable($('connections'), listed, 'connections');

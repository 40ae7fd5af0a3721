// The fleet: whether the daemon is in touch with it, the other daemons, and the members of the store where they meet.

const outOfTouch = status => Boolean(status.fleet && !status.fleet.in_touch);

function showFleet({fleet}) {
  $('fleet').hidden = !fleet;
  $('touch').hidden = !fleet || fleet.in_touch;
  if (!fleet) return;
  const since = duration(Math.max((Date.now() - new Date(fleet.since)) / 1000, 0));
  if (!fleet.in_touch) {
    setText($('touch-text'), `For ${since} nothing is granted here, and clients that held a key were dropped: ${fleet.reason}. ` +
      'Other daemons of the fleet may serve.');
  }
  setText($('fleet-text'), fleet.in_touch
    ? `In touch for ${since}. What it writes is seen after ${grouped.format(fleet.watch_lag_seconds * 1000)} ms. ` +
      `${plural(fleet.places, 'place')} of ${grouped.format(fleet.all_places)} in lines for keys are its own. Lock space ${fleet.space}.`
    : 'Out of touch. What is known of the store:');
  const warnings = fleet.warnings ?? [];
  $('fleet-warnings').hidden = warnings.length === 0;
  refill($('fleet-warnings'), warnings, () => warnings.map(text => element('li', {}, text)));
  showDaemons(fleet);
  showMembers(fleet);
}

function showDaemons({daemons}) {
  updateRows($('daemons'), daemons, daemon => daemon.lease,
    () => [cell(''), cell('version'), numberCell('places'), numberCell('seen')],
    (row, daemon) => {
      setText(row.cells[0], daemon.address + (daemon.self ? ' (this one)' : ''));
      setText(row.cells[1], daemon.version);
      setText(row.cells[2], grouped.format(daemon.places));
      setText(row.cells[3], duration(daemon.seen_seconds) + ' ago');
    });
}

function showMembers({members}) {
  updateRows($('members'), members, member => member.endpoint,
    () => [cell(''), cell('version'), cell('state'), numberCell('database')],
    (row, member) => {
      setText(row.cells[0], member.endpoint);
      setText(row.cells[1], member.version ?? '–');
      setText(row.cells[2], memberState(member));
      setText(row.cells[3], member.size_bytes
        ? mebibytes(member.size_bytes) + (member.quota_bytes ? ` of ${mebibytes(member.quota_bytes)}` : '') + ' MiB' : '–');
    });
}

function memberState({reachable, error, leader, alarms}) {
  if (!reachable) return error ?? 'cannot be reached';
  return [leader ? 'leader' : 'follower', ...(alarms ?? []).map(alarm => 'alarm ' + alarm)].join(', ');
}

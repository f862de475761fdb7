"""A leech of a real run, on libtorrent: says when everything is there and written, and what it has given.

usage: libtorrent_peer.py TORRENT FOLDER ADDRESS UP DOWN; the rates in bytes a second, 0 for no limit

Discovery beyond trackers, port mapping and peer exchange are off. Runs until it is killed.
"""

import sys, time

import libtorrent as lt

torrent, folder, address, up, down = sys.argv[1:]
session = lt.session(dict(
    listen_interfaces=address + ":0", outgoing_interfaces=address, enable_dht=False, enable_lsd=False,
    enable_upnp=False, enable_natpmp=False, enable_incoming_utp=False, enable_outgoing_utp=False,
    allow_multiple_connections_per_ip=True, upload_rate_limit=int(up), download_rate_limit=int(down),
    alert_mask=lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification))
# Peers of the own network are exempt from limits unless they are put back into the class of all.
everybody = lt.ip_filter()
everybody.add_rule("0.0.0.0", "255.255.255.255", 1)
session.set_peer_class_filter(everybody)
parameters = lt.add_torrent_params()
parameters.ti, parameters.save_path = lt.torrent_info(torrent), folder
parameters.flags |= lt.torrent_flags.disable_dht | lt.torrent_flags.disable_lsd | lt.torrent_flags.disable_pex
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
handle = session.add_torrent(parameters)
complete, given, asked_at = False, -1, 0.0
while True:
    session.wait_for_alert(100)
    for alert in session.pop_alerts():
        if isinstance(alert, (lt.torrent_finished_alert, lt.torrent_checked_alert)) and handle.status().is_seeding:
            handle.flush_cache()
        # Only what is asked for when everything is there tells that everything is written.
        if isinstance(alert, lt.cache_flushed_alert) and not complete:
            complete = True
            print("complete", flush=True)
    if time.monotonic() > asked_at + 0.5:
        asked_at, now = time.monotonic(), handle.status().total_payload_upload
        if now != given:
            given = now
            print("given", given, flush=True)

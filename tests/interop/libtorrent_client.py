"""Downloads one torrent with libtorrent and prints its progress, one JSON object a line.

usage: libtorrent_client.py TORRENT-or-MAGNET FOLDER ADDRESS [encrypted | rc4]

Discovery beyond trackers, port mapping and peer exchange are off. Runs until it is killed.
"""

import json
import sys
import time

import libtorrent as lt


def settings(address, wishes):
    # Forced: plaintext neither out nor in. Plaintext payload behind an encrypted handshake is offered (3), or not (2).
    forced = {"out_enc_policy": 0, "in_enc_policy": 0, "allowed_enc_level": 2 if "rc4" in wishes else 3}
    forced = forced if wishes else {}
    return forced | {
        "listen_interfaces": f"{address}:0",
        "outgoing_interfaces": address,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "allow_multiple_connections_per_ip": True,
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.storage_notification
        | lt.alert.category_t.tracker_notification
        | lt.alert.category_t.peer_notification,
    }


def main():
    source, folder, address, *wishes = sys.argv[1:]
    session = lt.session(settings(address, wishes))
    if source.startswith("magnet:"):
        parameters = lt.parse_magnet_uri(source)
    else:
        parameters = lt.add_torrent_params()
        parameters.ti = lt.torrent_info(source)
    parameters.save_path = folder
    parameters.flags |= lt.torrent_flags.disable_dht | lt.torrent_flags.disable_lsd | lt.torrent_flags.disable_pex
    handle = session.add_torrent(parameters)
    flushing = flushed = False
    while True:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            # Only what is asked for when everything is there tells that everything is written.
            flushed = flushed or (flushing and isinstance(alert, lt.cache_flushed_alert))
            print(json.dumps({"event": "alert", "message": alert.message()}), flush=True)
        status = handle.status()
        if status.is_seeding and not flushing:
            flushing = True
            handle.flush_cache()
        print(
            json.dumps(
                {
                    "event": "status",
                    "state": str(status.state),
                    "progress": status.progress,
                    "peers": status.num_peers,
                    # Seeding and flushed: what was written can be read by others.
                    "complete": status.is_seeding and flushed,
                    "error": status.errc.message() if status.errc.value() else None,
                }
            ),
            flush=True,
        )
        # A stream of peer alerts must not make this loop spin.
        time.sleep(0.05)


main()

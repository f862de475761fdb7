//! Who may know of a torrent: whom it is announced to, and what the user has to hear of that. Pure.
//!
//! A private torrent is told to its own trackers and to nobody else (BEP 27), unless the user puts others in their
//! place. The embedded tracker gives out what was made here, what names it, and what is public and has no tracker.

use crate::secret_url::TrackerUrl;

/// What of a torrent decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub private: bool,
    /// It was made in this run, with the embedded tracker in it if there is one.
    pub made_here: bool,
    pub tiers: &'a [Vec<TrackerUrl>],
    /// One of its trackers is the embedded one.
    pub names_embedded: bool,
}

/// What the user has given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means<'a> {
    /// Trackers besides the torrent's own.
    pub trackers: &'a [TrackerUrl],
    /// They take the place of the torrent's own.
    pub replace: bool,
    /// There is an embedded tracker, or there is one as soon as a torrent needs it.
    pub embedded: bool,
    /// Peers are named, too.
    pub peers: bool,
}

/// Whom a torrent is told to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AnnouncePlan {
    /// The embedded tracker gives it out.
    pub hosted: bool,
    /// Trackers that are all asked, whatever others answer.
    pub others: Vec<TrackerUrl>,
    /// Trackers in tiers (BEP 12).
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// Peers that the user names may be dialled.
    pub dials_named: bool,
    /// What the user has to hear, each a sentence about the torrent.
    pub notes: Vec<&'static str>,
}

const NOWHERE_PRIVATE: &str = "it is private and names no tracker, so nobody may be told of it; name its tracker with \
                               --tracker URL --replace-trackers";
const NOWHERE: &str = "it names no tracker and none was given, so nobody can find it: Seedring finds peers through \
                       trackers only, not through DHT or web seeds; add one with --tracker URL (or a peer, for get, \
                       with --peer)";
const HOSTED: &str = "its torrent file names no tracker; those find it who have the magnet link above, which names the \
                      tracker that runs here";
const PRIVATE_TRACKER: &str = "--tracker is not used for it: it is private, so only its own trackers may know of it; \
                               --replace-trackers puts yours in their place";
const PRIVATE_PEER: &str =
    "named peers are not dialled for it: it is private, so its peers come from its trackers only";

/// Whom the torrent is told to.
///
/// # Errors
/// Why it is refused.
pub(super) fn plan(told: Told<'_>, means: Means<'_>) -> Result<AnnouncePlan, &'static str> {
    let replaced = means.replace && !means.trackers.is_empty();
    let mut plan = AnnouncePlan { dials_named: !told.private, ..AnnouncePlan::default() };
    if !replaced {
        plan.tiers = told.tiers.iter().filter(|tier| !tier.is_empty()).cloned().collect();
    }
    if replaced || !told.private {
        plan.others = means.trackers.to_vec();
    }
    if told.private && plan.others.is_empty() && plan.tiers.is_empty() {
        return Err(NOWHERE_PRIVATE);
    }
    let is_ours = told.made_here || told.names_embedded || (!told.private && plan.tiers.is_empty());
    plan.hosted = means.embedded && !replaced && is_ours;
    if told.private && !means.trackers.is_empty() && !replaced {
        plan.notes.push(PRIVATE_TRACKER);
    }
    if told.private && means.peers {
        plan.notes.push(PRIVATE_PEER);
    }
    if plan.others.is_empty() && plan.tiers.is_empty() {
        if plan.hosted {
            plan.notes.push(HOSTED);
        } else if !means.peers {
            plan.notes.push(NOWHERE);
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "http://own.example/announce";
    const GIVEN: &str = "http://given.example/announce";

    fn urls(given: &[&str]) -> Vec<TrackerUrl> {
        given.iter().map(|&url| url.into()).collect()
    }

    fn planned(
        private: bool,
        own: &[&str],
        given: &[&str],
        replace: bool,
    ) -> Result<AnnouncePlan, &'static str> {
        let tiers: Vec<_> = own.iter().map(|&url| vec![url.into()]).collect();
        let told = Told { private, made_here: false, tiers: &tiers, names_embedded: false };
        // As on the command line: a tracker that is named takes the place of the embedded one.
        let means = Means { trackers: &urls(given), replace, embedded: given.is_empty(), peers: false };
        plan(told, means)
    }

    #[test]
    fn a_tracker_that_the_user_names_is_asked_as_well_and_never_for_a_private_torrent() {
        let public = planned(false, &[OWN], &[GIVEN], false).unwrap();
        assert_eq!((public.others, public.tiers, public.notes), (urls(&[GIVEN]), vec![urls(&[OWN])], vec![]));
        let private = planned(true, &[OWN], &[GIVEN], false).unwrap();
        assert_eq!((private.others, private.tiers), (vec![], vec![urls(&[OWN])]));
        assert_eq!(private.notes, [PRIVATE_TRACKER]);
        for private in [true, false] {
            let replaced = planned(private, &[OWN], &[GIVEN], true).unwrap();
            assert_eq!((replaced.others, replaced.tiers, replaced.notes), (urls(&[GIVEN]), vec![], vec![]));
        }
    }

    #[test]
    fn the_embedded_tracker_gives_out_what_is_made_here_what_names_it_and_public_torrents_without_a_tracker()
    {
        let tiers = [urls(&[OWN])];
        let means = Means { trackers: &[], replace: false, embedded: true, peers: false };
        for (private, made_here, names_embedded, has_tracker, hosted) in [
            (false, true, true, true, true),
            (false, false, true, true, true),
            (true, false, true, true, true),
            (false, false, false, false, true),
            (false, false, false, true, false),
            (true, false, false, true, false),
        ] {
            let tiers = if has_tracker { &tiers[..] } else { &[] };
            let told = Told { private, made_here, tiers, names_embedded };
            assert_eq!(plan(told, means).unwrap().hosted, hosted, "{told:?}");
            assert!(!plan(told, Means { embedded: false, ..means }).is_ok_and(|plan| plan.hosted));
        }
    }

    #[test]
    fn a_torrent_that_nobody_can_find_is_told_and_a_private_one_refused() {
        assert_eq!(planned(true, &[], &[], false), Err(NOWHERE_PRIVATE));
        assert_eq!(planned(true, &[], &[GIVEN], false), Err(NOWHERE_PRIVATE));
        assert!(planned(true, &[], &[GIVEN], true).is_ok());
        assert_eq!(planned(false, &[], &[], false).unwrap().notes, [HOSTED]);
        assert_eq!(planned(false, &[], &[GIVEN], false).unwrap().notes, [""; 0]);
        let told = Told { private: false, made_here: false, tiers: &[vec![]], names_embedded: false };
        let alone = Means { trackers: &[], replace: false, embedded: false, peers: false };
        assert_eq!(plan(told, alone).unwrap().notes, [NOWHERE]);
        assert_eq!(plan(told, Means { peers: true, ..alone }).unwrap().notes, [""; 0]);
    }

    #[test]
    fn peers_that_the_user_names_are_not_dialled_for_a_private_torrent() {
        let tiers = [urls(&[OWN])];
        let told = Told { private: true, made_here: false, tiers: &tiers, names_embedded: false };
        let means = Means { trackers: &[], replace: false, embedded: false, peers: true };
        let private = plan(told, means).unwrap();
        assert_eq!((private.dials_named, private.notes), (false, vec![PRIVATE_PEER]));
        assert!(plan(Told { private: false, ..told }, means).unwrap().dials_named);
    }
}

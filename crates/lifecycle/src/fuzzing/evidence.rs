use time::macros::date;

use super::display;
use crate::evidence::Record;
use crate::evidence::waivers::Waivers;

/// Parses arbitrary evidence. No parser may panic, and a parsed record must survive a round trip.
pub fn evidence(data: &[u8]) {
    crate::evidence::fuzzing::documents(data);
    if let Ok(record) = serde_json::from_slice::<Record>(data) {
        let printed = serde_json::to_vec(&record).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<Record>(&printed).ok(), Some(record.clone()));
        assert!(record.repeats(&record));
        let _ = record.at();
    }
}

/// Parses a waivers file. Every valid waiver must have an owner and a reason.
pub fn waivers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let today = date!(2026 - 11 - 27);
    let Ok(waivers) = Waivers::parse(text, display(), today) else { return };
    for waiver in waivers.iter() {
        assert!(!waiver.owner.trim().is_empty() && !waiver.reason.trim().is_empty(), "{waiver:?}");
    }
}

//! The rules for the order of operations in the log of one DID.

use std::time::{SystemTime, UNIX_EPOCH};

use genkan_protocol::crypto::PublicKey;
use genkan_protocol::plc::Operation;
use genkan_protocol::syntax::Did;
use serde_json::{Value, json};

/// One accepted operation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    at_millis: u128,
}

impl Entry {
    pub(super) fn now(operation: Operation) -> Self {
        let at_millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self { operation, at_millis }
    }

    pub(super) fn audited(&self, did: &Did) -> Value {
        json!({
            "did": did,
            "operation": self.operation,
            "cid": self.operation.cid(),
            "nullified": false,
            "createdAt": rfc3339(self.at_millis),
        })
    }
}

/// Checks whether the operation may be the next one, and says why not.
pub(super) fn check(did: &Did, log: &[Entry], operation: &Operation) -> Result<(), String> {
    if let Some(data) = operation.data() {
        data.check().map_err(|why| why.to_string())?;
    }
    let Some(last) = log.last().map(|entry| &entry.operation) else {
        return check_first(did, operation);
    };
    if operation.prev() != Some(last.cid().as_str()) {
        return Err("Operations not correctly ordered".to_owned());
    }
    // Nothing may follow a tombstone.
    let Some(before) = last.data() else { return Err("Operations not correctly ordered".to_owned()) };
    let keys = before.rotation_keys.iter().filter_map(|key| PublicKey::from_did_key(key).ok());
    signed_by(operation, &keys.collect::<Vec<_>>())
}

fn check_first(did: &Did, operation: &Operation) -> Result<(), String> {
    let Some(data) = operation.data() else { return Err("Operations not correctly ordered".to_owned()) };
    match operation.did() {
        Some(named) if &named == did => {}
        Some(named) => {
            return Err(format!("Hash of genesis operation does not match DID identifier: {named}"));
        }
        None => return Err("Operations not correctly ordered".to_owned()),
    }
    let keys = data.rotation_keys.iter().filter_map(|key| PublicKey::from_did_key(key).ok());
    signed_by(operation, &keys.collect::<Vec<_>>())
}

fn signed_by(operation: &Operation, keys: &[PublicKey]) -> Result<(), String> {
    operation.verify_signature(keys).map(drop).map_err(|_| "Invalid signature on op".to_owned())
}

/// Formats a moment as a date of the civil calendar (Howard Hinnant's algorithm, days since
/// 0000-03-01).
pub(crate) fn rfc3339(millis: u128) -> String {
    let seconds = millis / 1000;
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    // The algorithm counts months from March, so that the leap day is the last day of a year.
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u128::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn a_moment_has_its_date() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_001), "2000-02-29T00:00:00.001Z");
        assert_eq!(rfc3339(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
    }
}

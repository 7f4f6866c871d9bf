//! The document that the PLC directory shows for an account.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{DidDocument, Service, VerificationMethod};
use crate::crypto::{Curve, PublicKey};
use crate::plc;
use crate::syntax::Did;

impl DidDocument {
    /// Renders the state of a `did:plc` as the PLC directory does, byte by byte in the order of its
    /// members.
    pub fn of_plc_data(did: &Did, data: &plc::Data) -> Self {
        let mut context = vec![DID_CONTEXT, MULTIKEY_CONTEXT];
        let mut verification_method = Vec::new();
        for (name, key) in in_directory_order(&data.verification_methods) {
            // The directory adds one context for each curve in the document. Keys of other curves
            // have no context.
            if let Ok(key) = PublicKey::from_did_key(key) {
                let of_curve = match key.curve() {
                    Curve::K256 => K256_CONTEXT,
                    Curve::P256 => P256_CONTEXT,
                };
                if !context.contains(&of_curve) {
                    context.push(of_curve);
                }
            }
            verification_method.push(VerificationMethod {
                id: format!("{did}#{name}"),
                r#type: "Multikey".to_owned(),
                controller: did.to_string(),
                // A `did:key` is the multibase form of the key behind this prefix.
                public_key_multibase: Some(key.strip_prefix("did:key:").unwrap_or(key).to_owned()),
                other: BTreeMap::new(),
            });
        }
        let service = in_directory_order(&data.services)
            .map(|(name, service)| Service {
                // The directory writes ids of services relative, and those of keys absolute.
                id: format!("#{name}"),
                r#type: service.r#type.clone(),
                service_endpoint: Value::String(service.endpoint.clone()),
                other: BTreeMap::new(),
            })
            .collect();
        Self {
            context: context.into(),
            id: did.clone(),
            also_known_as: data.also_known_as.clone(),
            verification_method,
            service,
            other: BTreeMap::new(),
        }
    }
}

const DID_CONTEXT: &str = "https://www.w3.org/ns/did/v1";
const MULTIKEY_CONTEXT: &str = "https://w3id.org/security/multikey/v1";
const K256_CONTEXT: &str = "https://w3id.org/security/suites/secp256k1-2019/v1";
const P256_CONTEXT: &str = "https://w3id.org/security/suites/ecdsa-2019/v1";

/// The directory keeps operations in a `jsonb` column of PostgreSQL, which orders members by
/// length, then by bytes.
fn in_directory_order<T>(members: &BTreeMap<String, T>) -> impl Iterator<Item = (&String, &T)> {
    let mut ordered: Vec<_> = members.iter().collect();
    // The sort is stable, and the map already has its names in the order of their bytes.
    ordered.sort_by_key(|(name, _)| name.len());
    ordered.into_iter()
}

//! TLS settings for outgoing connections: one stack (rustls with ring), one set of roots.
//!
//! The roots are Mozilla's, built in, and not those of the machine: a minimal container has none,
//! and two replicas must not trust different authorities. An operator adds authorities by a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Why the extra certificate authorities could not be read, in words for the operator.
#[derive(Debug, thiserror::Error)]
#[error("certificate file {path}: {problem}")]
pub(crate) struct TlsError {
    path: PathBuf,
    problem: String,
}

/// Returns the settings for outgoing TLS connections: HTTP/1.1, with the built-in roots and those
/// in `extra_ca_file` (PEM).
pub(crate) fn client_config(extra_ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = extra_ca_file {
        for certificate in read_certificates(path)? {
            let problem = |cause: &dyn std::fmt::Display| TlsError {
                path: path.to_owned(),
                problem: cause.to_string(),
            };
            roots.add(certificate).map_err(|cause| problem(&cause))?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let problem = |problem: String| TlsError { path: path.to_owned(), problem };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| problem(cause.to_string()))?;
    if certificates.is_empty() {
        return Err(problem("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_file_that_cannot_be_used() {
        let error = client_config(Some(Path::new("/nonexistent/ca.pem"))).unwrap_err();
        assert!(error.to_string().starts_with("certificate file /nonexistent/ca.pem: "), "{error}");
        let empty = std::env::temp_dir().join(format!("genkan-{}.pem", crate::base::random::id()));
        std::fs::write(&empty, "nothing here").unwrap();
        let error = client_config(Some(&empty)).unwrap_err();
        assert!(error.to_string().ends_with("holds no certificate"), "{error}");
        std::fs::remove_file(empty).unwrap();
    }
}

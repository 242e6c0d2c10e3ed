//! The TLS configuration of all connections.

mod provider;

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, LazyLock};

use rustls::{CertificateError, ClientConfig, RootCertStore};

/// There are no trusted root certificates.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no certificate authorities are known{0}")]
pub(crate) struct NoRoots(String);

/// Returns the configuration: rustls with ring, and root certificates from the system, or from `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`.
///
/// It is created on first use: reading the certificates opens some hundred files, and plain http needs none of them.
///
/// # Errors
/// Returns an error if there are no root certificates.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, NoRoots> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, NoRoots>> = LazyLock::new(read);
    CONFIG.clone()
}

fn read() -> Result<Arc<ClientConfig>, NoRoots> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})"));
        return Err(NoRoots(why.unwrap_or_default()));
    }
    #[expect(clippy::expect_used, reason = "ring supports the versions that rustls enables by default")]
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::provider()))
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3");
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Returns what is wrong with a certificate, if that made a handshake fail.
pub(crate) fn certificate_error(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref() {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                return Some("unknown issuer".to_owned());
            }
            Some(rustls::Error::InvalidCertificate(wrong)) => return Some(wrong.to_string()),
            _ => {}
        }
        // The `source` of an I/O error skips the error that it contains.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = held.map(|held| held as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_found_below_whatever_wraps_it() {
        let wrapped = |error| certificate_error(&io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error)));
        let refused = |wrong| wrapped(rustls::Error::InvalidCertificate(wrong));
        assert_eq!(refused(CertificateError::UnknownIssuer).as_deref(), Some("unknown issuer"));
        assert_eq!(refused(CertificateError::Revoked).as_deref(), Some("Revoked"));
        assert_eq!(wrapped(rustls::Error::HandshakeNotComplete), None);
    }
}

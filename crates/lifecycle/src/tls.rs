//! The one TLS configuration.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// rustls with ring, and the roots of the system or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// Where there are no roots at all every https connection fails with an unknown issuer, which says it better than an
/// error here could: plain http on loopback still works.
pub(crate) fn client_config() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(clippy::expect_used, reason = "ring supports the versions that rustls enables by default")]
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3");
    builder.with_root_certificates(roots).with_no_client_auth()
}

//! The TLS settings of HTTPS trackers: verification is always on, against the built-in root certificates and
//! those the user adds.

use super::{ClientConfig, TrackerError};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig as TlsConfig, RootCertStore, crypto};

pub(super) fn connector(config: &ClientConfig) -> Result<TlsConnector, TrackerError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in &config.trusted_der {
        let added = roots.add(CertificateDer::from(certificate.as_slice()));
        added.map_err(|error| TrackerError::TlsSetup(error.to_string()))?;
    }
    if let Some(path) = &config.trusted_pem {
        let bad = |why: String| TrackerError::TrustedFile { path: path.clone(), why };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
        let mut usable = 0;
        for certificate in certificates {
            // System bundles hold certificates that the verifier does not understand; they are left out.
            usable += usize::from(roots.add(certificate.map_err(|error| bad(error.to_string()))?).is_ok());
        }
        if usable == 0 {
            return Err(bad("it holds no usable certificate".to_owned()));
        }
    }
    let settings = TlsConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TrackerError::TlsSetup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(settings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trusted_file_without_certificates_is_the_users_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let config = ClientConfig { trusted_pem: Some(path.clone()), ..ClientConfig::default() };
        assert!(matches!(connector(&config), Err(TrackerError::TrustedFile { .. })));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(matches!(connector(&config), Err(TrackerError::TrustedFile { .. })));
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&path, generated.cert.pem()).unwrap();
        assert!(connector(&config).is_ok());
    }
}

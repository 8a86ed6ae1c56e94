"""Whom TLS trusts: the machine's own store, plus what the user's environment adds.

Making a context reads some 150 certificates (30 to 100 ms): once a process, in a thread.
`truststore` asks the operating system on macOS and Windows. On Linux it would read the
bundle again for every connection (46 ms on the event loop), and OpenSSL's own default is the
same store there.
"""

import logging
import os
import ssl
import sys
from collections.abc import Mapping

_log = logging.getLogger(__name__)

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)
"""Where Linux distributions keep their certificates, for a Python built to look elsewhere."""


def provider_context(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """A verifying client context. Blocking.

    `SSL_CERT_FILE` replaces the store (OpenSSL's meaning of it), `NODE_EXTRA_CA_CERTS` adds to
    it; one that cannot be read is only warned about, as Node does.

    Raises:
        OSError: `SSL_CERT_FILE` names a file that holds no certificates.
    """
    context = _system_context(environ.get("SSL_CERT_FILE") or None)
    extra = environ.get("NODE_EXTRA_CA_CERTS")
    if extra:
        try:
            context.load_verify_locations(cafile=extra)
        except OSError as error:
            _log.warning("NODE_EXTRA_CA_CERTS is not used: %s: %s", extra, error)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _system_context(cert_file: str | None) -> ssl.SSLContext:
    # Not ssl.create_default_context(): its strict flag (3.13) refuses many company roots.
    if cert_file is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cafile=cert_file)
        except OSError as error:
            raise OSError(f"SSL_CERT_FILE holds no certificates: {cert_file}: {error}") from error
        return context
    if sys.platform in ("darwin", "win32"):
        import truststore

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        bundle = next((path for path in _BUNDLES if os.path.isfile(path)), None)
        if bundle is not None:
            context.load_verify_locations(cafile=bundle)
    return context

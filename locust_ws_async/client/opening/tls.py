"""TLS contexts from simple settings; connections with the same settings share one."""

from __future__ import annotations

import functools
import os
import ssl

__all__ = ["tls_context"]


@functools.cache
def tls_context(verify: bool | str = True, cert: tuple[str, str | None] | None = None) -> ssl.SSLContext:
    """
    The TLS context for these settings. The whole process shares it, since each takes up to 1 MB and tens of
    milliseconds.

    Args:
        verify: True for the system's authorities, False to accept any certificate, or the path of a PEM file or folder
            with the authorities to accept; OpenSSL finds those of a folder by names that ``openssl rehash`` gives.
        cert: the paths of the PEM files with the client's certificate and its private key; None as the second for one
            file with both.

    Raises:
        ValueError: a file is missing, or is not what it should be.
    """
    if verify is True:
        context = ssl.create_default_context()
    elif verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        folder = os.path.isdir(verify)
        try:
            context = ssl.create_default_context(cafile=None if folder else verify, capath=verify if folder else None)
        except (OSError, ssl.SSLError) as exc:
            raise ValueError(
                f"verify must be True, False, or a PEM file or folder of authorities; {verify!r} did not load: {exc}"
            ) from exc
    if cert is not None:
        try:
            context.load_cert_chain(*cert)
        except (OSError, ssl.SSLError) as exc:
            raise ValueError(
                "cert must be a PEM file with certificate and private key, or a pair of files with one each; "
                f"{cert!r} did not load: {exc}"
            ) from exc
    return context

"""Where secrets live: OS keyring, encrypted file, environment. The index beside them holds none."""

"""Hardware profiles shipped with autotp: data only, read through `autotp.hardware.catalogue`."""

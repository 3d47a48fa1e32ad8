"""An epoch as one affine map: long runs, data larger than memory, many processes."""

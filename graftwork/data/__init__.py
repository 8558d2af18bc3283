"""From files to accepted rows, each on its side for good."""

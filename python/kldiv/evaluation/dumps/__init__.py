"""What models left on disk, one file a format, all read as sequences of blocks of rows."""

"""The tests of each front end, with the versions that it is said to work with."""

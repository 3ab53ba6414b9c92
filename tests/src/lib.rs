//! Baton's whole-cluster tests: network namespaces, real processes.

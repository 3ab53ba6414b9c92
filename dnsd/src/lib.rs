//! Baton's DNS server: the cluster's name answers with the active node's address.

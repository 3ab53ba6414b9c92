//! Applications as they are: other people's programs and this one's own, which leave their process group, change user, ignore signals,
//! fork without end or stand still in the kernel. Each keeps a record of its own of when it acted ([`app`]); [`judge`] compares the
//! records of all nodes with each other and with `/health`; [`kin`] finds what is left of them; [`mode`] is how their nodes run, and
//! [`trouble`] what befalls them.

pub mod answers;
pub mod app;
pub mod burden;
pub mod judge;
pub mod kin;
pub mod mode;
pub mod postgres;
pub mod scene;
pub mod trouble;

//! Who writes: the name that a process puts into its temporary files and its provenance.

use super::fs::{Identity, StoreFs};
use super::publish::TEMPORARY;

/// Host, space of process ids, process, start time and a random number, so that two writers never share a temporary name.
#[derive(Clone, Debug)]
pub struct Writer {
    host: String,
    space: Option<String>,
    pid: u32,
    label: String,
}

impl Writer {
    /// The writer that this process is from now on.
    pub fn new(files: &dyn StoreFs) -> Self {
        let Identity { host, space, pid, start, random } = files.identity();
        let host: String =
            host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').take(64).collect();
        let label = format!("{host}-{}-{pid}-{start}-{random:016x}", space.as_deref().unwrap_or("unknown"));
        Writer { host, space, pid, label }
    }

    /// `host-space-pid-start-random`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether a temporary file of that name was left by a process that is gone. Known only of processes of the same boot
    /// of the same host in the same space of process ids: in two containers one id is two processes.
    pub fn knows_to_be_dead(&self, name: &str, files: &dyn StoreFs) -> bool {
        let Some((host, space, pid)) = writer_of(name) else { return false };
        host == self.host && self.space.as_deref() == Some(space) && pid != self.pid && !files.is_alive(pid)
    }
}

/// Host, space and process id in a temporary name. The host may hold dashes, so the name is read from its end.
fn writer_of(name: &str) -> Option<(&str, &str, u32)> {
    let mut fields = name.strip_prefix(TEMPORARY)?.rsplitn(6, '-');
    let (_number, _random, _start) = (fields.next()?, fields.next()?, fields.next()?);
    let pid = fields.next()?.parse().ok()?;
    let space = fields.next()?;
    Some((fields.next()?, space, pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fs::RealFs;

    #[test]
    fn a_dead_writer_of_this_host_is_told_from_a_living_one_and_from_one_of_another_container() {
        let writer = Writer::new(&RealFs);
        let own = format!("{TEMPORARY}{}-0", writer.label());
        let space = writer.space.clone().expect("the tests run on Linux with /proc");
        assert_eq!(writer_of(&own), Some((writer.host.as_str(), space.as_str(), std::process::id())));
        assert!(!writer.knows_to_be_dead(&own, &RealFs));
        let mut child = std::process::Command::new("true").spawn().expect("`true` runs");
        let pid = child.id();
        child.wait().expect("`true` ends");
        let host = &writer.host;
        assert!(writer.knows_to_be_dead(&format!("{TEMPORARY}{host}-{space}-{pid}-1-ab-0"), &RealFs));
        for other in [
            format!("{TEMPORARY}elsewhere-{space}-{pid}-1-ab-0"),
            // The same name and number in another container, or before the machine was started anew.
            format!("{TEMPORARY}{host}-00000000-{pid}-1-ab-0"),
            // As it was written before the space was part of it.
            format!("{TEMPORARY}{host}-{pid}-1-ab-0"),
            format!("{TEMPORARY}nonsense"),
        ] {
            assert!(!writer.knows_to_be_dead(&other, &RealFs), "{other}");
        }
    }
}

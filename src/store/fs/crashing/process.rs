//! A process of the machine: the file system as the store sees it, one call at a time.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::super::{Entry, Identity, NewFile, StoreFs};
use super::{Change, Machine, Node, Oddities, World, put};

/// A process of the machine, as the store sees it.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) machine: Machine,
    pub(super) pid: u32,
    /// Two processes in spaces of their own may have one name and number.
    pub(super) space: u32,
}

/// How a call bears on the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Changes what is seen or what is on disk: a process may be killed in its place.
    Change,
    Look,
}

impl Process {
    /// The process ends when its turn comes, by itself or because it was killed: the others go on. (Ended at any other moment, a
    /// history would depend on the clock.) Names whose sync failed were in doubt for it alone: nobody can tell them from others
    /// any more, and the next sync puts them on disk.
    pub fn end(&self) {
        let mut world = self.turn();
        let pid = self.pid;
        world.players.retain(|player| *player != pid);
        world.dead.push(pid);
        for node in &mut world.nodes {
            if let Node::Dir { changes, .. } = node {
                changes.iter_mut().filter(|change| change.by == pid).for_each(|change| change.lost = false);
            }
        }
        world.next_turn();
        self.machine.0.turns.notify_all();
    }

    /// Whether it was killed, alone or with the machine.
    pub fn is_killed(&self) -> bool {
        let world = self.machine.world();
        !world.powered || world.dead.contains(&self.pid)
    }

    /// The names this process made in a directory and has not synced stay in doubt as long as it lives.
    pub fn lose_names(&self, path: &Path) {
        let mut world = self.machine.world();
        let Ok(found) = world.find(path) else { return };
        if let Node::Dir { changes, .. } = &mut world.nodes[found] {
            changes.iter_mut().filter(|change| change.by == self.pid).for_each(|change| change.lost = true);
        }
    }

    /// Waits for this process's turn.
    fn turn(&self) -> MutexGuard<'_, World> {
        let mut world = self.machine.world();
        while world.turn.is_some_and(|turn| turn != self.pid) {
            world = self.machine.0.turns.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        world
    }

    /// Waits for this process's turn and runs a call, or finds that the process was killed.
    fn call<T>(&self, kind: Kind, call: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.turn();
        if kind == Kind::Change {
            if let Some((pid, left)) = &mut world.kill
                && *pid == self.pid
            {
                *left = left.saturating_sub(1);
            }
            if let Some(left) = &mut world.cut {
                *left = left.saturating_sub(1);
            }
        }
        if world.cut == Some(0) {
            world.powered = false;
        }
        if world.kill == Some((self.pid, 0)) {
            world.kill = None;
            world.dead.push(self.pid);
        }
        if !world.powered || world.dead.contains(&self.pid) {
            return Err(io::Error::other("the process was killed"));
        }
        let outcome = call(&mut world);
        world.time += 1;
        let passes = if kind == Kind::Change { 3 } else { 32 };
        if world.players.len() > 1 && world.draw(passes) == 0 {
            world.next_turn();
            self.machine.0.turns.notify_all();
        }
        outcome
    }
}

/// A file of the machine, open for writing.
struct OpenFile {
    process: Process,
    node: usize,
}

impl OpenFile {
    fn with<T>(&self, kind: Kind, call: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>, &mut bool, u64) -> T) -> io::Result<T> {
        self.process.call(kind, |world| match &mut world.nodes[self.node] {
            Node::File { bytes, synced, is_synced, links } => Ok(call(bytes, synced, is_synced, *links)),
            Node::Dir { .. } => Err(Errno::ISDIR.into()),
        })
    }
}

impl NewFile for OpenFile {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        self.with(Kind::Change, |bytes, _, is_synced, _| {
            bytes.extend_from_slice(new);
            *is_synced = false;
            new.len()
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(Kind::Change, |bytes, synced, is_synced, _| {
            synced.clone_from(bytes);
            *is_synced = true;
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(Kind::Look, |bytes, _, _, _| bytes.len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        self.with(Kind::Look, |_, _, _, links| links)
    }
}

impl StoreFs for Process {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let node = self.call(Kind::Change, |world| {
            world.refuse_taken(path)?;
            let (folder, name) = world.place(path)?;
            let node = world.nodes.len();
            world.nodes.push(Node::File { bytes: Vec::new(), synced: Vec::new(), is_synced: false, links: 0 });
            world.change(folder, self.pid, vec![(name, Some(node))])?;
            Ok(node)
        })?;
        Ok(Box::new(OpenFile { process: self.clone(), node }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Kind::Change, |world| {
            if world.oddities.no_links {
                return Err(Errno::PERM.into());
            }
            let node = world.find(from)?;
            world.refuse_taken(to)?;
            let (folder, name) = world.place(to)?;
            world.change(folder, self.pid, vec![(name, Some(node))])
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Kind::Change, |world| {
            if world.oddities.no_links {
                return Err(Errno::INVAL.into());
            }
            world.find(from)?;
            world.refuse_taken(to)?;
            world.rename(from, to, self.pid)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Kind::Change, |world| world.rename(from, to, self.pid))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Kind::Change, |world| world.remove(path, self.pid))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let taken = self.call(Kind::Look, |world| world.refuse_taken(path));
        taken?;
        self.call(Kind::Change, |world| {
            world.refuse_taken(path)?;
            let (folder, name) = world.place(path)?;
            let node = world.nodes.len();
            let (names, on_disk) = (BTreeMap::new(), BTreeMap::new());
            world.nodes.push(Node::Dir { names, on_disk, changes: Vec::new() });
            world.change(folder, self.pid, vec![(name, Some(node))])
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Kind::Change, |world| {
            let found = world.find(path)?;
            let Node::Dir { on_disk, changes, .. } = &mut world.nodes[found] else {
                return Err(Errno::NOTDIR.into());
            };
            let (mut lost, synced): (Vec<Change>, Vec<Change>) =
                std::mem::take(changes).into_iter().partition(|change| change.lost);
            synced.iter().for_each(|change| put(on_disk, change));
            // What was made again after a failed sync is no longer in doubt.
            let again = |name: &String| synced.iter().any(|change| change.to.iter().any(|(made, _)| made == name));
            lost.iter_mut().for_each(|change| change.to.retain(|(name, _)| !again(name)));
            lost.retain(|change| !change.to.is_empty());
            *changes = lost;
            Ok(())
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.call(Kind::Look, |world| match &world.nodes[world.find_for(path, self.pid)?] {
            Node::File { bytes, .. } => Ok(bytes.clone()),
            Node::Dir { .. } => Err(Errno::ISDIR.into()),
        })
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.read(path)?;
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.call(Kind::Look, |world| match &world.nodes[world.find(path)?] {
            Node::File { .. } => Err(Errno::NOTDIR.into()),
            Node::Dir { names, .. } => Ok((names.iter())
                .filter(|(_, to)| world.sees(self.pid, to))
                .map(|(name, to)| Entry {
                    name: name.clone(),
                    is_dir: matches!(world.nodes[to.node], Node::Dir { .. }),
                })
                .collect()),
        })
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        self.call(Kind::Look, |world| world.find(path).map(|_| false))
    }

    fn age_seconds(&self, path: &Path) -> io::Result<u64> {
        self.call(Kind::Look, |world| {
            world.find(path)?;
            Ok(match world.oddities {
                Oddities { wild_clock: true, .. } => u64::from(world.draw(1 << 31)) >> world.draw(31),
                Oddities { fast_clock: true, .. } => 2 * 24 * 3600,
                _ => 0,
            })
        })
    }

    fn identity(&self) -> Identity {
        // Every process has the same name and number but for the space: what tells them apart must be looked at.
        let random = u64::from(self.pid);
        let mut world = self.turn();
        let start = if world.oddities.wild_clock { u128::from(world.draw(u32::MAX)) << 64 } else { 0 };
        Identity { host: "host".into(), space: Some(self.space.to_string()), pid: self.pid, start, random }
    }

    fn is_alive(&self, pid: u32) -> bool {
        self.call(Kind::Look, |world| Ok(world.dead.contains(&pid))).map_or(true, |dead| !dead)
    }

    fn now(&self) -> Duration {
        let world = self.machine.world();
        // By the contract of this call it never goes back, but nothing says how fast it goes.
        Duration::from_millis(if world.oddities.wild_clock { world.time.saturating_mul(1 << 20) } else { world.time })
    }

    fn sleep(&self, time: Duration) {
        self.machine.world().time += time.as_millis() as u64;
    }
}

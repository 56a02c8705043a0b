//! A machine in memory whose power can be cut: files, names and processes, drawn from Philox and so the same every time.
//!
//! Each directory has the names that processes see, those that are on disk, and the changes between the two. A sync of the
//! directory puts its changes on disk, a sync of a file its bytes. When the power is cut, every change that was not
//! synced survives or vanishes by the throw of a coin, and bytes that were not synced are there in full, in part, with holes
//! or not at all. Several processes take turns at file calls, in an order that is drawn too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::{Entry, Identity, NewFile, StoreFs, parent};
use crate::random::{Draws, Stream};

/// Bytes that are lost together when a file is torn.
const BLOCK: usize = 64;

/// What is odd about the file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oddities {
    /// For so many calls a new name is not seen by other processes that list or open it.
    pub late: u64,
    /// A removed file may stay under another name for a while, as files do that an NFS client has open.
    pub silly_renames: bool,
    /// No hard links.
    pub no_links: bool,
    /// The clock says that every file is two days old.
    pub fast_clock: bool,
}

#[derive(Clone, Debug)]
enum Node {
    File { bytes: Vec<u8>, synced: Vec<u8>, is_synced: bool, links: u64 },
    Dir { names: BTreeMap<String, Name>, on_disk: BTreeMap<String, usize>, changes: Vec<Change> },
}

#[derive(Clone, Copy, Debug)]
struct Name {
    node: usize,
    made_by: u32,
    made_at: u64,
}

/// Names of one directory that changed together and have not been synced.
#[derive(Clone, Debug)]
struct Change {
    to: Vec<(String, Option<usize>)>,
    by: u32,
    /// A sync of them failed: no later one helps.
    lost: bool,
}

/// The state of the machine.
#[derive(Clone, Debug)]
struct World {
    nodes: Vec<Node>,
    /// Calls so far.
    time: u64,
    draws: u64,
    seed: u64,
    oddities: Oddities,
    processes: u32,
    /// Whose turn it is, and who takes turns.
    turn: Option<u32>,
    players: Vec<u32>,
    dead: Vec<u32>,
    /// The process that is killed at its so-manieth change from now.
    kill: Option<(u32, u64)>,
    /// The power is cut at the so-manieth change from now.
    cut: Option<u64>,
    powered: bool,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    turns: Condvar,
}

/// A machine: the disk and the processes on it.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Shared>);

/// A process of the machine, as the store sees it.
#[derive(Clone, Debug)]
pub struct Process {
    machine: Machine,
    pid: u32,
    /// Two processes in spaces of their own may have one name and number.
    space: u32,
}

impl Machine {
    pub fn new(seed: u64) -> Self {
        let root = Node::Dir { names: BTreeMap::new(), on_disk: BTreeMap::new(), changes: Vec::new() };
        Machine::of(World {
            nodes: vec![root],
            time: 0,
            draws: 0,
            seed,
            oddities: Oddities::default(),
            processes: 0,
            turn: None,
            players: Vec::new(),
            dead: Vec::new(),
            kill: None,
            cut: None,
            powered: true,
        })
    }

    fn of(world: World) -> Self {
        Machine(Arc::new(Shared { world: Mutex::new(world), turns: Condvar::new() }))
    }

    /// The same disk in another machine, with draws and oddities of its own.
    pub fn copy(&self, seed: u64, oddities: Oddities) -> Machine {
        let world = self.world().clone();
        Machine::of(World { seed, draws: 0, oddities, ..world })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process that begins now, in one of two spaces of process ids.
    pub fn process(&self) -> Process {
        let mut world = self.world();
        world.processes += 1;
        let (pid, space) = (world.processes, world.draw(2));
        Process { machine: self.clone(), pid, space }
    }

    /// These processes take turns from now on; each must end with [`Process::end`].
    pub fn play(&self, processes: &[Process]) {
        let mut world = self.world();
        world.players = processes.iter().map(|process| process.pid).collect();
        world.next_turn();
    }

    /// Kills the process at its n-th change of the disk from now.
    pub fn kill_at(&self, process: &Process, change: u64) {
        self.world().kill = Some((process.pid, change));
    }

    /// Cuts the power at the n-th change of the disk from now: every call fails until [`Machine::restart`].
    pub fn cut_at(&self, change: u64) {
        self.world().cut = Some(change);
    }

    /// Whether the power is still there.
    pub fn is_powered(&self) -> bool {
        self.world().powered
    }

    /// Cuts the power if it is not cut yet, and starts the machine again with what is left on its disk.
    pub fn restart(&self) {
        let mut world = self.world();
        world.crash();
        world.powered = true;
        (world.kill, world.cut) = (None, None);
        world.dead = (1..=world.processes).collect();
    }

    /// Forgets a planned kill or cut that did not come.
    pub fn calm(&self) {
        let mut world = self.world();
        (world.kill, world.cut) = (None, None);
    }

    /// Changes one bit of a file, on disk too.
    pub fn rot(&self, path: &Path) {
        let mut world = self.world();
        let at = world.draw(1 << 20) as usize;
        let Ok(found) = world.find(path) else { return };
        if let Node::File { bytes, synced, .. } = &mut world.nodes[found]
            && !bytes.is_empty()
        {
            let at = at % bytes.len();
            bytes[at] ^= 1;
            *synced = bytes.clone();
        }
    }

    /// Path and bytes of every file, as a process sees them.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let world = self.world();
        let (mut found, mut left) = (Vec::new(), vec![(PathBuf::from("/"), 0)]);
        while let Some((path, node)) = left.pop() {
            match &world.nodes[node] {
                Node::File { bytes, .. } => found.push((path, bytes.clone())),
                Node::Dir { names, .. } => left.extend(names.iter().map(|(name, to)| (path.join(name), to.node))),
            }
        }
        found.sort();
        found
    }
}

impl World {
    fn draw(&mut self, below: u32) -> u32 {
        self.draws += 1;
        Draws::new(self.seed, Stream::Bootstrap, self.draws).below(below)
    }

    fn coin(&mut self) -> bool {
        self.draw(2) == 0
    }

    fn next_turn(&mut self) {
        self.turn = match self.players.len() as u32 {
            0 => None,
            count => {
                let at = self.draw(count) as usize;
                Some(self.players[at])
            }
        };
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for name in path.iter().skip(1) {
            let Node::Dir { names, .. } = &self.nodes[at] else { return Err(Errno::NOTDIR.into()) };
            at = names.get(&*name.to_string_lossy()).ok_or(Errno::NOENT)?.node;
        }
        Ok(at)
    }

    /// As `find`, if the process can see the file's own name yet.
    fn find_for(&self, path: &Path, pid: u32) -> io::Result<usize> {
        let (folder, name) = self.place(path)?;
        let Node::Dir { names, .. } = &self.nodes[folder] else { return Err(Errno::NOTDIR.into()) };
        let name = names.get(&name).filter(|name| self.sees(pid, name)).ok_or(Errno::NOENT)?;
        Ok(name.node)
    }

    fn sees(&self, pid: u32, name: &Name) -> bool {
        name.made_by == pid || name.made_at + self.oddities.late <= self.time || self.oddities.late == 0
    }

    /// The directory and the name in it.
    fn place(&self, path: &Path) -> io::Result<(usize, String)> {
        let name = path.file_name().ok_or(Errno::EXIST)?.to_string_lossy().into_owned();
        Ok((self.find(parent(path))?, name))
    }

    /// EEXIST if the name is taken; who learned that sees the name from then on.
    fn refuse_taken(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        let Node::Dir { names, .. } = &mut self.nodes[folder] else { return Err(Errno::NOTDIR.into()) };
        match names.get_mut(&name) {
            None => Ok(()),
            Some(there) => {
                there.made_at = 0;
                Err(Errno::EXIST.into())
            }
        }
    }

    /// Changes names of one directory together.
    fn change(&mut self, folder: usize, by: u32, to: Vec<(String, Option<usize>)>) -> io::Result<()> {
        let made_at = self.time + 1;
        let mut gone = Vec::new();
        let Node::Dir { names, changes, .. } = &mut self.nodes[folder] else { return Err(Errno::NOTDIR.into()) };
        for (name, node) in &to {
            let before = match node {
                Some(node) => names.insert(name.clone(), Name { node: *node, made_by: by, made_at }),
                None => names.remove(name),
            };
            gone.extend(before.map(|name| name.node));
        }
        let made: Vec<usize> = to.iter().filter_map(|(_, node)| *node).collect();
        changes.push(Change { to, by, lost: false });
        made.into_iter().for_each(|node| self.count_links(node, true));
        gone.into_iter().for_each(|node| self.count_links(node, false));
        Ok(())
    }

    fn count_links(&mut self, node: usize, more: bool) {
        if let Node::File { links, .. } = &mut self.nodes[node] {
            *links = if more { *links + 1 } else { links.saturating_sub(1) };
        }
    }

    fn rename(&mut self, from: &Path, to: &Path, by: u32) -> io::Result<()> {
        let node = self.find(from)?;
        let ((source, old), (target, new)) = (self.place(from)?, self.place(to)?);
        if source == target {
            return self.change(source, by, vec![(old, None), (new, Some(node))]);
        }
        self.change(target, by, vec![(new, Some(node))])?;
        self.change(source, by, vec![(old, None)])
    }

    fn remove(&mut self, path: &Path, by: u32) -> io::Result<()> {
        let node = self.find(path)?;
        let (folder, name) = self.place(path)?;
        let mut to = vec![(name, None)];
        if self.oddities.silly_renames && self.draw(8) == 0 {
            to.push((format!(".nfs{:024x}", self.time), Some(node)));
        }
        self.change(folder, by, to)
    }

    /// The power is gone.
    fn crash(&mut self) {
        // Journals keep the order of changes, other disks do not; both are tried.
        let in_order = self.coin();
        for at in 0..self.nodes.len() {
            match self.nodes[at].clone() {
                Node::File { bytes, synced, is_synced, .. } => {
                    let bytes = if is_synced { bytes } else { self.torn(bytes, synced) };
                    self.nodes[at] = Node::File { synced: bytes.clone(), bytes, is_synced: true, links: 0 };
                }
                Node::Dir { mut on_disk, changes, .. } => {
                    let kept = if in_order { self.draw(changes.len() as u32 + 1) as usize } else { changes.len() };
                    for (number, change) in changes.iter().enumerate() {
                        let survives = if change.lost || !in_order { self.coin() } else { number < kept };
                        if survives {
                            put(&mut on_disk, change);
                        }
                    }
                    let seen = |node: &usize| Name { node: *node, made_by: 0, made_at: 0 };
                    let names = on_disk.iter().map(|(name, node)| (name.clone(), seen(node))).collect();
                    self.nodes[at] = Node::Dir { names, on_disk, changes: Vec::new() };
                }
            }
        }
        let held: Vec<usize> = (self.nodes.iter())
            .flat_map(|node| match node {
                Node::Dir { on_disk, .. } => on_disk.values().copied().collect(),
                Node::File { .. } => Vec::new(),
            })
            .collect();
        held.into_iter().for_each(|node| self.count_links(node, true));
    }

    /// What may be left of bytes that were not synced.
    fn torn(&mut self, bytes: Vec<u8>, synced: Vec<u8>) -> Vec<u8> {
        match self.draw(4) {
            0 => synced,
            1 => bytes,
            2 => bytes[..self.draw(bytes.len() as u32 + 1) as usize].to_vec(),
            _ => {
                let mut holes = bytes;
                for block in holes.chunks_mut(BLOCK) {
                    if self.coin() {
                        block.fill(0);
                    }
                }
                holes
            }
        }
    }
}

fn put(names: &mut BTreeMap<String, usize>, change: &Change) {
    for (name, node) in &change.to {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

/// How a call bears on the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Changes what is seen or what is on disk: a process may be killed in its place.
    Change,
    Look,
}

impl Process {
    /// The process ends, by itself or because it was killed: the others go on.
    pub fn end(&self) {
        let mut world = self.machine.world();
        let pid = self.pid;
        world.players.retain(|player| *player != pid);
        world.dead.push(pid);
        world.next_turn();
        self.machine.0.turns.notify_all();
    }

    /// Whether it was killed, alone or with the machine.
    pub fn is_killed(&self) -> bool {
        let world = self.machine.world();
        !world.powered || world.dead.contains(&self.pid)
    }

    /// The names this process made in a directory and has not synced stay in doubt for ever.
    pub fn lose_names(&self, path: &Path) {
        let mut world = self.machine.world();
        let Ok(found) = world.find(path) else { return };
        if let Node::Dir { changes, .. } = &mut world.nodes[found] {
            changes.iter_mut().filter(|change| change.by == self.pid).for_each(|change| change.lost = true);
        }
    }

    /// Waits for this process's turn and runs a call, or finds that the process was killed.
    fn call<T>(&self, kind: Kind, call: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.machine.world();
        while world.turn.is_some_and(|turn| turn != self.pid) {
            world = self.machine.0.turns.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
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

    fn len(&self) -> io::Result<u64> {
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
            world.find(path).map(|_| if world.oddities.fast_clock { 2 * 24 * 3600 } else { 0 })
        })
    }

    fn identity(&self) -> Identity {
        // Every process has the same name and number but for the space: what tells them apart must be looked at.
        let random = u64::from(self.pid);
        Identity { host: "host".into(), space: Some(self.space.to_string()), pid: self.pid, start: 0, random }
    }

    fn is_alive(&self, pid: u32) -> bool {
        !self.machine.world().dead.contains(&pid)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.machine.world().time)
    }

    fn sleep(&self, time: Duration) {
        self.machine.world().time += time.as_millis() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of `/a` after a crash, over many seeds: how often it was absent, whole, and anything else.
    fn survivors(act: impl Fn(&Process)) -> [usize; 3] {
        let mut counts = [0; 3];
        for seed in 0..200 {
            let machine = Machine::new(seed);
            act(&machine.process());
            machine.restart();
            let place = match machine.process().read(Path::new("/a")) {
                Err(_) => 0,
                Ok(bytes) if bytes == [7; 300] => 1,
                Ok(_) => 2,
            };
            counts[place] += 1;
        }
        counts
    }

    fn write(process: &Process, path: &str) -> Box<dyn NewFile> {
        let mut file = process.create_new(Path::new(path)).expect("a new name");
        assert_eq!(file.write(&[7; 300]).expect("there is space"), 300);
        file
    }

    #[test]
    fn a_crash_takes_what_was_not_synced_and_nothing_else() {
        let [absent, whole, torn] = survivors(|process| drop(write(process, "/a")));
        assert!(absent > 0 && whole > 0 && torn > 0, "{absent} {whole} {torn}");
        let [absent, whole, torn] = survivors(|process| write(process, "/a").sync().expect("syncs"));
        assert!(absent > 0 && whole > 0 && torn == 0, "{absent} {whole} {torn}");
        let [absent, whole, torn] = survivors(|process| {
            drop(write(process, "/a"));
            process.sync_dir(Path::new("/")).expect("syncs");
        });
        assert!(absent == 0 && whole > 0 && torn > 0, "{absent} {whole} {torn}");
        let both = |process: &Process| {
            write(process, "/a").sync().expect("syncs");
            process.sync_dir(Path::new("/")).expect("syncs");
        };
        assert_eq!(survivors(both), [0, 200, 0]);
    }

    #[test]
    fn a_name_whose_sync_failed_may_vanish_until_it_is_made_again() {
        let doubtful = |process: &Process| {
            write(process, "/b").sync().expect("syncs");
            process.link(Path::new("/b"), Path::new("/a")).expect("links");
            process.lose_names(Path::new("/"));
            process.sync_dir(Path::new("/")).expect("syncs");
        };
        assert!(survivors(doubtful)[0] > 0);
        let again = |process: &Process| {
            doubtful(process);
            write(process, "/c").sync().expect("syncs");
            process.rename(Path::new("/c"), Path::new("/a")).expect("renames");
            process.sync_dir(Path::new("/")).expect("syncs");
        };
        assert_eq!(survivors(again), [0, 200, 0]);
    }

    #[test]
    fn what_is_in_a_folder_whose_name_vanished_is_gone() {
        let mut gone = 0;
        for seed in 0..50 {
            let machine = Machine::new(seed);
            let process = machine.process();
            process.create_dir(Path::new("/f")).expect("new");
            write(&process, "/f/a").sync().expect("syncs");
            process.sync_dir(Path::new("/f")).expect("syncs");
            machine.restart();
            gone += usize::from(machine.files().is_empty());
        }
        assert!((1..50).contains(&gone), "{gone}");
    }

    #[test]
    fn the_same_seed_gives_the_same_survivors() {
        let left = |seed| {
            let machine = Machine::new(seed);
            ["/a", "/b", "/c", "/d"].iter().for_each(|path| drop(write(&machine.process(), path)));
            machine.restart();
            machine.files()
        };
        assert_eq!(left(3), left(3));
        assert!((0..10).any(|seed| left(seed) != left(3)));
    }
}

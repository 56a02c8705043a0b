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

use rustix::io::Errno;

use super::parent;
use crate::random::{Draws, Stream};

mod process;
#[cfg(test)]
mod tests;

pub use process::Process;

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
    /// The clock jumps to and fro: files are of any age, processes began at any time.
    pub wild_clock: bool,
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
    /// When the other processes see it.
    seen_at: u64,
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
        name.made_by == pid || name.seen_at <= self.time || self.oddities.late == 0
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
                there.seen_at = 0;
                Err(Errno::EXIST.into())
            }
        }
    }

    /// Changes names of one directory together.
    fn change(&mut self, folder: usize, by: u32, to: Vec<(String, Option<usize>)>) -> io::Result<()> {
        let seen_at = self.time + 1 + self.oddities.late;
        let mut gone = Vec::new();
        let Node::Dir { names, changes, .. } = &mut self.nodes[folder] else { return Err(Errno::NOTDIR.into()) };
        for (name, node) in &to {
            // Whoever looks up a name that is replaced finds one file or the other.
            let seen_at = if names.contains_key(name) { 0 } else { seen_at };
            let before = match node {
                Some(node) => names.insert(name.clone(), Name { node: *node, made_by: by, seen_at }),
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
                    let seen = |node: &usize| Name { node: *node, made_by: 0, seen_at: 0 };
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

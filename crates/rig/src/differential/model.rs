//! What the reference believes: its tree of names with deletion marks (`lisafs.md` 3.4 to 3.7), and
//! the ids that both servers have given out.
//!
//! The marks here are at least those of the reference: nodes are never freed, so its weak spot 5
//! does not happen here, it is only noted (`detached`).

use std::collections::{BTreeMap, HashMap, HashSet};

use wire::FdId;

use super::op::Ref;
use super::tree::HostFile;

/// The same thing at both servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Both<T> {
    pub(super) ours: T,
    pub(super) reference: T,
}

/// What an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Control,
    /// An open file.
    Open,
    /// A bound socket.
    Bound,
}

/// An id that both gave out.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) ids: Both<FdId>,
    pub(super) files: Both<HostFile>,
    pub(super) kind: Kind,
    /// `S_IFMT` bits.
    pub(super) file_type: u16,
    pub(super) node: usize,
    /// Made by BindAt: at the reference it stands for the socket instead of its file.
    pub(super) bound_child: bool,
    pub(super) live: bool,
}

#[derive(Debug)]
struct Node {
    parent: usize,
    name: Vec<u8>,
    deleted: bool,
    /// Another node may have taken its place in the reference's table (weak spot 5).
    detached: bool,
}

#[derive(Debug)]
pub(super) struct Model {
    nodes: Vec<Node>,
    children: HashMap<(usize, Vec<u8>), usize>,
    pub(super) slots: BTreeMap<Ref, Slot>,
    /// Our files of sockets that were told to listen.
    pub(super) listening: HashSet<HostFile>,
    /// How often our files of sockets were connected to.
    pub(super) connects: HashMap<HostFile, u32>,
}

pub(super) const ROOT: usize = 0;

impl Model {
    pub(super) fn new() -> Self {
        let root = Node {
            parent: ROOT,
            name: Vec::new(),
            deleted: false,
            detached: false,
        };
        Self {
            nodes: vec![root],
            children: HashMap::new(),
            slots: BTreeMap::new(),
            listening: HashSet::new(),
            connects: HashMap::new(),
        }
    }

    pub(super) fn child(&mut self, parent: usize, name: &[u8]) -> usize {
        let (nodes, key) = (&mut self.nodes, (parent, name.to_vec()));
        *self.children.entry(key).or_insert_with(|| {
            nodes.push(Node {
                parent,
                name: name.to_vec(),
                deleted: false,
                detached: false,
            });
            nodes.len() - 1
        })
    }

    pub(super) fn unlink(&mut self, parent: usize, name: &[u8]) {
        if let Some(node) = self.children.remove(&(parent, name.to_vec())) {
            self.mark(node);
        }
    }

    fn mark(&mut self, top: usize) {
        for node in 0..self.nodes.len() {
            if self.line(node).any(|above| above == top) {
                self.nodes[node].deleted = true;
            }
        }
    }

    pub(super) fn rename(&mut self, from: (usize, &[u8]), to: (usize, &[u8])) {
        if from == to {
            return;
        }
        let replaced = self.children.remove(&(to.0, to.1.to_vec()));
        let renamed = self.children.remove(&(from.0, from.1.to_vec()));
        if let Some(node) = replaced {
            self.mark(node);
        }
        if let Some(node) = renamed {
            (self.nodes[node].parent, self.nodes[node].name) = (to.0, to.1.to_vec());
            self.children.insert((to.0, to.1.to_vec()), node);
        }
    }

    /// An id of the node is closed.
    pub(super) fn released(&mut self, node: usize) {
        let gone: Vec<usize> = self.line(node).collect();
        for node in gone {
            if !self.nodes[node].deleted {
                break;
            }
            let key = (self.nodes[node].parent, self.nodes[node].name.clone());
            if let Some(&successor) = self.children.get(&key) {
                self.nodes[successor].detached = true;
            }
        }
    }

    /// The node and those above it.
    fn line(&self, node: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(node), |&node| {
            (node != ROOT).then(|| self.nodes[node].parent)
        })
    }

    pub(super) fn is_deleted(&self, node: usize) -> bool {
        self.nodes[node].deleted
    }

    pub(super) fn is_detached(&self, node: usize) -> bool {
        self.line(node).any(|above| self.nodes[above].detached)
    }

    /// Length of the node's path at the reference.
    pub(super) fn path_bytes(&self, node: usize) -> usize {
        self.line(node)
            .filter(|&node| node != ROOT)
            .map(|node| 1 + self.nodes[node].name.len())
            .sum()
    }
}

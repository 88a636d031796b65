//! Several sources as one tree: each further one in a folder of its own.

use super::chunks::Chunks;
use super::{ImportError, Imported, Refusal, refused};
use protocol::tree::{Entry, LinkTarget, Manifest, Node, TreePath};

/// Lays each of `further` into its folder below `first`. Where something stands already nothing is laid.
///
/// # Errors
///
/// [`ImportError`] names the folder that is taken.
pub fn together(first: Imported, further: Vec<(TreePath, Imported)>) -> Result<Imported, ImportError> {
    let mut entries = first.manifest.entries().to_vec();
    let (mut chunks, mut left_out) = (vec![first.chunks], first.left_out);
    for (below, imported) in further {
        let inside =
            |path: &TreePath| path.as_str().strip_prefix(below.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let is_empty_folder = |entry: &Entry| entry.path == below && matches!(entry.node, Node::Folder);
        entries.retain(|entry| !is_empty_folder(entry));
        if entries.iter().any(|entry| entry.path == below || inside(&entry.path)) {
            return Err(refused(below.as_str(), Refusal::Twice));
        }
        for entry in imported.manifest.entries() {
            entries.push(moved(entry, &below)?);
        }
        chunks.push(imported.chunks);
        left_out += imported.left_out;
    }
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(Imported { manifest: Manifest::new(entries)?, chunks: Chunks::Several(chunks), left_out })
}

fn moved(entry: &Entry, below: &TreePath) -> Result<Entry, ImportError> {
    let path = format!("{below}/{}", entry.path);
    let path = TreePath::try_from(path.as_str()).map_err(|error| refused(&path, Refusal::Path(error)))?;
    let node = match &entry.node {
        Node::Link { target } => {
            let target = target.as_str();
            let link = LinkTarget::new(&path, target);
            let target =
                link.map_err(|error| refused(path.as_str(), Refusal::Link { target: target.to_owned(), error }))?;
            Node::Link { target }
        }
        node => node.clone(),
    };
    Ok(Entry { path, node })
}

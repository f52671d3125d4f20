//! NumPy files of f32 matrices, written row by row and atomically: the file has its name only once it is whole.
//!
//! The format is version 1.0 of <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A matrix that is being written beside its final name. Dropped unfinished, it leaves nothing.
pub struct NpyWriter {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl NpyWriter {
    /// Begins an f32 matrix of this many rows and columns.
    ///
    /// # Errors
    /// What the system says about the folder.
    pub fn create(path: &Path, rows: usize, columns: usize) -> io::Result<Self> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Renaming over a device or a pipe would replace it.
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it exists and isn't a file"));
        }
        // A temporary file is usually its owner's alone; here the process's umask decides, as for any new file.
        let permissions = Permissions::from_mode(0o666);
        let mut file = BufWriter::new(tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?);
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
        // Magic, version and length take 10 bytes; data begin at a multiple of 64, after a line end.
        let padding = 63 - (10 + header.len()) % 64;
        header.extend(std::iter::repeat_n(' ', padding));
        header.push('\n');
        let length = u16::try_from(header.len()).map_err(io::Error::other)?;
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// What the system says: a full disk.
    pub fn row(&mut self, values: &[f32]) -> io::Result<()> {
        values.iter().try_for_each(|v| self.file.write_all(&v.to_le_bytes()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(&self.path).map(drop).map_err(|e| e.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_numpy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut npy = NpyWriter::create(&path, 2, 3).unwrap();
        npy.row(&[1.0, 2.0, 3.0]).unwrap();
        npy.row(&[4.0, 5.0, -6.0]).unwrap();
        npy.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // What numpy.save writes for np.array([[1, 2, 3], [4, 5, -6]], dtype=np.float32).
        let mut expected = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend([1f32, 2.0, 3.0, 4.0, 5.0, -6.0].iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(bytes, expected);
    }

    #[test]
    fn unfinished_files_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut npy = NpyWriter::create(&path, 2, 1).unwrap();
        npy.row(&[1.0]).unwrap();
        drop(npy);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

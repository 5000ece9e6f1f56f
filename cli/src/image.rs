//! A snapshot of the store as the image that `xl restore` reads: the adapters between reader, export and pipe.

use crate::catalog;
use crate::config::Config;
use crate::exit::{Exit, Failure, Outcome};
use snapshot::export::{ExportError, ExportOptions, Exported, export};
use snapshot::ports::BlockDevice;
use snapshot::store::{AttachmentKind, SnapshotReader};
use snapshot::stream::Sink;
use std::io::{self, BufWriter, Write};

/// Bytes that are written at once.
const BUFFER: usize = 1 << 20;

struct Writing<W: Write>(BufWriter<W>);

impl<W: Write> Sink for Writing<W> {
    type Error = io::Error;

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

/// Why no image came out.
#[derive(Debug)]
pub enum Broken {
    /// The snapshot is at fault.
    Snapshot(Failure),
    /// Whoever reads the image is.
    Reader(io::Error),
}

/// Writes the image; `config` replaces the recorded configuration.
pub fn write<D: BlockDevice, W: Write>(
    reader: &mut SnapshotReader<'_, D>,
    config: Option<&str>,
    to: W,
) -> Result<Exported, Broken> {
    let name = reader.info().name.clone();
    let mut sink = Writing(BufWriter::with_capacity(BUFFER, to));
    let options = ExportOptions { config: config.map(str::as_bytes), ..ExportOptions::default() };
    let exported = export(reader, &mut sink, &options).map_err(|error| match error {
        ExportError::Source(error) => Broken::Snapshot(catalog::trouble(&name, error)),
        ExportError::Sink(error) => Broken::Reader(error),
        ExportError::Unusable(why) => {
            Broken::Snapshot(Exit::BadStore.fail(format_args!("{name} cannot be restored: {why}")))
        }
        ExportError::NoMemory => Broken::Snapshot(Exit::NoMemory.fail("not enough memory for the export")),
    })?;
    sink.0.flush().map_err(Broken::Reader)?;
    Ok(exported)
}

/// What a broken image means to `export`.
pub fn unwritten(to: &str) -> impl Fn(Broken) -> Failure {
    move |broken| match broken {
        Broken::Snapshot(failure) => failure,
        Broken::Reader(error) => Exit::CannotWrite.fail(format_args!("{to}: {error}")),
    }
}

/// The configuration to restore from, with room for every page of the snapshot; whether it had to be changed for that.
pub fn config_of<D: BlockDevice>(reader: &mut SnapshotReader<'_, D>) -> Outcome<(Config, bool)> {
    let (name, pages) = (reader.info().name.clone(), reader.info().data_pages + reader.info().zero_pages);
    let text = reader.attachment(AttachmentKind::CONFIG_JSON).map_err(|error| catalog::trouble(&name, error))?;
    let text = text.ok_or_else(|| Exit::BadConfig.fail(format_args!("{name} holds no configuration")))?;
    let mut config = Config::from_json(&text)?;
    let changed = config.make_room_for(pages);
    Ok((config, changed))
}

/// What a hook kept of the disks; empty if nothing.
pub fn kept_disks<D: BlockDevice>(reader: &mut SnapshotReader<'_, D>) -> Outcome<String> {
    let name = reader.info().name.clone();
    let text = reader.attachment(AttachmentKind::DISKS).map_err(|error| catalog::trouble(&name, error))?;
    Ok(String::from_utf8_lossy(&text.unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Place;
    use crate::catalog::tests::sample;

    #[test]
    fn the_image_starts_with_xls_magic_and_holds_every_page() {
        let path = sample("image");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: false };
        let mut store = catalog::open(&place).unwrap();
        let mut reader = store.snapshot("web01@one").unwrap();
        let mut image = Vec::new();
        let exported = write(&mut reader, Some("{\"x\":1}"), &mut image).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(exported.pages, 3);
        assert!(image.starts_with(b"Xen saved domain, xl format"));
        assert!(image.windows(8).any(|window| window == b"{\"x\":1}\0"));
        assert!(image.windows(4096).any(|window| window == [3; 4096]));
    }

    #[test]
    fn a_reader_that_goes_away_is_told_from_a_bad_snapshot() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let path = sample("image-closed");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: false };
        let mut store = catalog::open(&place).unwrap();
        let result = write(&mut store.snapshot("web01@one").unwrap(), None, Closed);
        std::fs::remove_file(path).unwrap();
        assert!(matches!(result, Err(Broken::Reader(_))));
    }
}

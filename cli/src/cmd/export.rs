//! `livesave export`: a snapshot as an xl save image, to a file that only its owner reads, or to a pipe.

use super::rm::parse_name;
use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::host::files;
use crate::{catalog, image, show};
use serde_json::json;
use std::io::{IsTerminal, stdout};
use std::path::Path;

/// Exports.
pub fn run(text: &str, output: &str, place: &Place) -> Outcome {
    let name = parse_name(text)?.to_string();
    if output == "-" && stdout().is_terminal() {
        let failure = Exit::Usage.fail("an image of guest memory is not for a terminal");
        return Err(failure.hint("give a file with -o, or pipe it: `livesave export NAME | xl restore /dev/stdin`"));
    }
    let mut store = catalog::open(place)?;
    let mut reader = store.snapshot(&name).map_err(|error| catalog::trouble(&name, error))?;
    let (config, changed) = image::config_of(&mut reader)?;
    let config = changed.then(|| config.to_json());
    let config = config.as_deref();
    if output == "-" {
        return image::write(&mut reader, config, stdout().lock())
            .map(drop)
            .map_err(image::unwritten("standard output"));
    }
    let file = files::create_secret(Path::new(output))?;
    let written = image::write(&mut reader, config, &file).map_err(image::unwritten(output)).and_then(|exported| {
        file.sync_all().map_err(|error| Exit::CannotWrite.fail(format_args!("{output}: {error}")))?;
        Ok(exported)
    });
    let exported = written.inspect_err(|_| {
        // Half an image is worse than none; that it cannot be removed changes nothing in the failure.
        let _ = std::fs::remove_file(output);
    })?;
    if place.json {
        return show::print_json(&json!({ "exported": name, "file": output, "pages": exported.pages }));
    }
    show::print(&format!("{name}: {} pages to {output}", exported.pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::sample;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    #[test]
    fn a_file_is_private_and_a_damaged_snapshot_leaves_none() {
        let path = sample("export");
        let out = path.with_extension("out");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: true };
        run("web01@one", out.to_str().unwrap(), &place).unwrap();
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(run("web01@one", out.to_str().unwrap(), &place).unwrap_err().exit, Exit::CannotWrite);
        std::fs::remove_file(&out).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(64).position(|window| window == [3; 64]).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().write_at(&[2], at as u64).unwrap();
        assert_eq!(run("web01@one", out.to_str().unwrap(), &place).unwrap_err().exit, Exit::BadStore);
        assert!(!out.exists());
        std::fs::remove_file(path).unwrap();
    }
}

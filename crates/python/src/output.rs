//! Writing a run down: rows to files, a line a second, the metadata at the end.

use std::path::PathBuf;
use std::sync::Mutex;

use arrow_schema::{Fields, SchemaRef};
use irl_measure::further::Layout;
use irl_measure::metadata::About;
use irl_measure::output::{self, Committed, Format, Sink};
use irl_measure::record::{Watch, record};
use irl_measure::schema::{self, Column};
use irl_measure::{MeasureError, exchange};
use irl_targets::Family;
use pyo3::prelude::*;

use crate::checkpoint::PyCheckpoint;
use crate::errors::{Error, Result};
use crate::list::PyList;
use crate::plan::PyPlan;
use crate::prefix::parse_family;
use crate::probe;
use crate::run::{PyRun, json};

/// Files for rows, which are opened before the first frame is sent. Used up by one run.
#[pyclass(frozen, module = "irlstack._core", name = "RawOutputs")]
pub(crate) struct PyOutputs {
    /// Where each is, how it is written, and what is safe of one that is gone on with.
    places: Vec<(PathBuf, Format, Option<Committed>)>,
    family: Family,
    schema: SchemaRef,
    header: bool,
    sinks: Mutex<Vec<Box<dyn Sink>>>,
}

/// The columns of these names of a scan with this probe, or the default ones.
pub(crate) fn columns(probe: &str, names: Option<Vec<String>>) -> Result<Vec<Column>> {
    choose(names, Column::defaults(), &Column::all(probe), |name| Column::by_name(probe, name))
}

/// The columns of a plan's scan: of the probe's own fields too, if there is a program that makes them.
pub(crate) fn layout(plan: &PyPlan, names: Option<&[String]>) -> Result<Option<Layout>> {
    plan.parse.as_ref().map(|_| Ok(Layout::of(&probe::of(&plan.plan)?, names)?)).transpose()
}

/// The same of an exchange.
pub(crate) fn exchange_columns(names: Option<Vec<String>>) -> Result<Vec<exchange::schema::Column>> {
    use exchange::schema::Column;
    choose(names, &Column::ALL, &Column::ALL, Column::by_name)
}

fn choose<C: Copy>(
    names: Option<Vec<String>>,
    defaults: &[C],
    all: &[C],
    by_name: impl Fn(&str) -> std::result::Result<C, MeasureError>,
) -> Result<Vec<C>> {
    match names {
        None => Ok(defaults.to_vec()),
        Some(names) if names == ["*"] => Ok(all.to_vec()),
        Some(names) if names.is_empty() => Err(Error::config("Name at least one output field.")),
        Some(names) => Ok(names.iter().map(|name| by_name(name)).collect::<std::result::Result<_, _>>()?),
    }
}

#[pymethods]
impl PyOutputs {
    #[new]
    #[pyo3(signature = (paths, family, output_fields=None, header=true, output_module=None, of="scan", listed=None, checkpoint=None, plan=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        paths: Vec<PathBuf>,
        family: &str,
        output_fields: Option<Vec<String>>,
        header: bool,
        output_module: Option<&str>,
        of: &str,
        listed: Option<&PyList>,
        checkpoint: Option<&PyCheckpoint>,
        plan: Option<&PyPlan>,
    ) -> Result<Self> {
        let family = parse_family(family)?;
        let schema = match of {
            "scan" => match plan.map(|plan| layout(plan, output_fields.as_deref())).transpose()?.flatten() {
                Some(layout) => layout.schema(family),
                None => {
                    let probe = plan.map_or("tcp_synscan", |plan| plan.plan.probe.name.as_str());
                    schema::scan(family, &columns(probe, output_fields)?)
                }
            },
            "exchange" => {
                let further = listed.map_or_else(Fields::empty, |list| list.0.columns().clone());
                exchange::schema::exchange(family, &exchange_columns(output_fields)?, &further)
            }
            _ => return Err(Error::config(format!("There is no run of {of:?}: it is a scan or an exchange."))),
        };
        let given = output_module.map(Format::by_name).transpose()?;
        let mut places = Vec::new();
        let saved = checkpoint.and_then(|checkpoint| checkpoint.saved.as_ref());
        for (number, path) in paths.into_iter().enumerate() {
            let format = match given {
                Some(format) => format,
                None => match Format::of(&path)? {
                    // A single column on standard output needs no header to be told apart.
                    Format::Csv if path.as_os_str() == "-" && schema.fields().len() == 1 => Format::Lines,
                    format => format,
                },
            };
            places.push((path, format, saved.map(|saved| saved.output(number))));
        }
        Ok(Self { places, family, schema, header, sinks: Mutex::default() })
    }

    /// Opens them: what is there already is overwritten from here on.
    fn open(&self) -> Result<()> {
        let Self { places, family, schema, header, sinks } = self;
        let open = |(path, format, safe): &(PathBuf, Format, Option<Committed>)| match safe {
            None => output::open(path, *format, *family, schema, *header),
            Some(safe) => output::reopen(path, *format, *family, schema, *header, safe),
        };
        let opened = places.iter().map(open).collect::<std::result::Result<Vec<_>, _>>()?;
        // Nothing panics while the lock is held.
        *sinks.lock().expect("the lock is not poisoned") = opened;
        Ok(())
    }
}

/// Looks for Ctrl-C and hands on what a second brought.
struct Watcher {
    each_second: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Watch for Watcher {
    fn go_on(&mut self) -> bool {
        self.keep(Python::attach(|py| py.check_signals()));
        self.raised.is_none()
    }

    fn second(&mut self, line: &str, row: &str) {
        if let Some(callback) = &self.each_second {
            let called = Python::attach(|py| callback.call1(py, (line, row)).map(drop));
            self.keep(called);
        }
    }
}

impl Watcher {
    /// Remembers the first exception; it ends the run.
    fn keep(&mut self, called: PyResult<()>) {
        if let Err(error) = called {
            self.raised.get_or_insert(error);
        }
    }
}

/// What a run's metadata is told.
#[derive(FromPyObject)]
pub(crate) struct AboutLike {
    argv: Vec<String>,
    seed_provided: bool,
    notes: Option<String>,
    user_metadata: Option<String>,
}

impl AboutLike {
    pub(crate) fn about(self) -> Result<About> {
        let user_metadata = self
            .user_metadata
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| Error::config(format!("The user metadata is no JSON: {error}.")))?;
        Ok(About {
            argv: self.argv,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed_provided: self.seed_provided,
            notes: self.notes,
            user_metadata,
            ..About::default()
        })
    }
}

/// Metadata as JSON, what ended the run early, whether it was interrupted, whether something was lost, and whether a
/// checkpoint tells how to go on.
type Outcome = (String, Option<PyErr>, bool, bool, bool);

/// Reads a run to its end into its outputs. `each_second` is called with ZMap's status line and CSV row.
#[pyfunction]
#[pyo3(signature = (run, outputs, about, each_second, checkpoint=None))]
pub(crate) fn record_run(
    py: Python<'_>,
    run: &PyRun,
    outputs: &PyOutputs,
    about: AboutLike,
    each_second: Option<Py<PyAny>>,
    checkpoint: Option<&PyCheckpoint>,
) -> Result<Outcome> {
    let checkpoint = checkpoint.map(PyCheckpoint::take).transpose()?;
    let about = about.about()?;
    // Nothing panics while the lock is held.
    let sinks = std::mem::take(&mut *outputs.sinks.lock().expect("the lock is not poisoned"));
    let mut watcher = Watcher { each_second, raised: None };
    let outcome = py.detach(|| record(&run.run, sinks, &about, &mut watcher, checkpoint));
    let error = match watcher.raised {
        Some(raised) if !raised.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) => Some(raised),
        _ => outcome.error.map(|error| PyErr::from(Error::from(error))),
    };
    Ok((json(&outcome.metadata)?, error, outcome.interrupted, outcome.lost, outcome.resumable))
}

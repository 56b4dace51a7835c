//! The filter in the kernel: loading, attaching, owners and their ring buffers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use log::{info, warn};
use nix::errno::Errno;

use super::config::{FilterConfig, FilterCounters, MAX_OWNERS, OwnerConfig, Reason};
use super::lanes::Lanes;
use super::layout::{Counters, Owner, STATE_LEN, STEERING_LEN, Settings, address_kind};
use super::registry::{NO_OWNER, Registry, Table};
use super::ring::RingReceiver;
use super::sys::{self, Attachment, Ring};
use crate::ebpf::{
    Mapping, descriptor, load_error, map_error, map_mut, mapped, missing, missing_capability, page_size, program_error,
    program_mut,
};
use crate::error::LinkError;
use crate::netdev::Interface;

/// Whether this build has the kernel filter in it: false when there was no clang, or not for Linux.
pub const FILTER_BUILT: bool = cfg!(irl_bpf);

#[cfg(irl_bpf)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/filter.bpf.o"));
#[cfg(not(irl_bpf))]
static OBJECT: &[u8] = &[];

const PROGRAM: &str = "irl_filter";
const PROGRAM_FRAGS: &str = "irl_filter_frags";
const PROGRAM_PASS: &str = "irl_pass";

/// How the filter sits on its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver, for frames in several pieces too.
    NativeFrags,
    /// In the driver.
    Native,
    /// In the kernel's receive path, behind the driver: works everywhere, and is slower.
    Generic,
}

impl XdpMode {
    const LADDER: [Self; 3] = [Self::NativeFrags, Self::Native, Self::Generic];

    fn program(self) -> &'static str {
        match self {
            Self::NativeFrags => PROGRAM_FRAGS,
            Self::Native | Self::Generic => PROGRAM,
        }
    }

    fn attachment(self) -> Attachment {
        match self {
            Self::NativeFrags | Self::Native => Attachment::Native,
            Self::Generic => Attachment::Generic,
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NativeFrags => "native-frags",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// Attaches another XDP program than the filter (the lab's responder) to an interface of this thread's namespace, in the
/// driver or else generic. It stays until the returned descriptor is closed, by whatever means.
///
/// # Errors
/// [`LinkError::UnknownInterface`], [`LinkError::Occupied`], [`LinkError::Os`] when neither mode is taken.
pub fn attach_program(program: BorrowedFd<'_>, interface: &str) -> Result<OwnedFd, LinkError> {
    let ifindex = interface_index(interface)?;
    let attempt = sys::link_xdp(program, ifindex, Attachment::Native).or_else(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Err(error),
        _ => sys::link_xdp(program, ifindex, Attachment::Generic),
    });
    attempt.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => occupied(interface),
        _ => LinkError::os(format!("attaching an XDP program to {interface}"), error),
    })
}

/// What the program decided about one frame given to it by [`KernelFilter::rehearse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The XDP action: 1 = drop, 2 = pass.
    pub action: u32,
    /// Average time of one run in ns.
    pub ns: u32,
}

/// The program, loaded, and where it is attached.
///
/// It is attached by a `bpf_link`: dropping this value, or the death of the process by whatever means, detaches it.
#[derive(Debug)]
pub struct KernelFilter {
    // Fields drop in this order: detached first, maps last.
    link: Option<OwnedFd>,
    ebpf: Ebpf,
    mode: Option<XdpMode>,
    interface: String,
    registry: Registry,
    steering: Mapping,
    states: Arc<Mapping>,
    rings: OwnedFd,
    lanes: OwnedFd,
    past_overruns: BTreeMap<u16, u64>,
}

impl KernelFilter {
    /// Loads the filter and attaches it to the interface `interface` of this thread's network namespace: in the
    /// driver where the driver can, else generic.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] when it was built without clang or the device takes no XDP program,
    /// [`LinkError::UnknownInterface`], [`LinkError::Occupied`] when another XDP program sits there (it is left
    /// alone), [`LinkError::Privilege`] naming the capability, [`LinkError::Load`] with the verifier's log.
    pub fn attach(interface: &str, config: &FilterConfig) -> Result<Self, LinkError> {
        let ifindex = interface_index(interface)?;
        if let Some(capability) = missing_capability() {
            return Err(LinkError::Privilege {
                capability,
                what: format!("attaching the filter to the interface {interface}"),
            });
        }
        let mut filter = Self::load(config)?;
        filter.interface = interface.to_owned();
        let mut refusals = Vec::new();
        for mode in XdpMode::LADDER {
            let attempt = filter.program(mode.program()).and_then(|program| {
                let fd = program.fd().map_err(|error| program_error(PROGRAM, error))?;
                Ok(sys::link_xdp(fd.as_fd(), ifindex, mode.attachment()))
            });
            match attempt {
                Ok(Ok(link)) => {
                    for refusal in &refusals {
                        info!("{interface}: {refusal}");
                    }
                    if mode == XdpMode::Generic {
                        warn!("{interface}: the driver takes no XDP program; the filter runs in generic mode, slower");
                    }
                    filter.link = Some(link);
                    filter.mode = Some(mode);
                    return Ok(filter);
                }
                Ok(Err(error)) => match error.raw_os_error() {
                    Some(libc::EBUSY | libc::EEXIST) => return Err(occupied(interface)),
                    Some(libc::EPERM | libc::EACCES) => {
                        return Err(LinkError::Privilege {
                            capability: "CAP_NET_ADMIN",
                            what: format!("attaching the filter to the interface {interface}"),
                        });
                    }
                    Some(libc::ENODEV) => return Err(LinkError::InterfaceGone { name: interface.to_owned() }),
                    _ => {
                        refusals.push(format!("XDP mode {mode} refused: {error}"));
                    }
                },
                // An old kernel or driver may take the plain program where it refuses the one for pieces.
                Err(error) if mode == XdpMode::NativeFrags => {
                    refusals.push(format!("XDP mode {mode} refused: {error}"))
                }
                Err(error) => return Err(error),
            }
        }
        Err(LinkError::Unsupported(format!(
            "the interface {interface} takes no XDP program ({}). A large MTU is the usual reason: try `ip link set dev \
             {interface} mtu 3498` or less, or use the packet engine",
            refusals.join("; ")
        )))
    }

    /// Loads the filter without attaching it: for [`KernelFilter::rehearse`].
    ///
    /// # Errors
    /// As [`KernelFilter::attach`].
    pub fn load(config: &FilterConfig) -> Result<Self, LinkError> {
        if OBJECT.is_empty() {
            return Err(LinkError::Unsupported(
                "this build has no kernel filter, because clang was missing when it was made: install clang and build \
                 again, or use the packet engine"
                    .to_owned(),
            ));
        }
        let registry = Registry::new(config)?;
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| load_error(PROGRAM, error))?;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (address, kind) in registry.addresses() {
            match address {
                IpAddr::V4(address) => v4.push((address.octets(), address_kind(kind))),
                IpAddr::V6(address) => v6.push((address.octets(), address_kind(kind))),
            }
        }
        let mut addresses4: HashMap<_, [u8; 4], u32> =
            map_mut(&mut ebpf, "addresses4")?.try_into().map_err(map_error)?;
        for (address, kind) in v4 {
            addresses4.insert(address, kind, 0).map_err(map_error)?;
        }
        let mut addresses6: HashMap<_, [u8; 16], u32> =
            map_mut(&mut ebpf, "addresses6")?.try_into().map_err(map_error)?;
        for (address, kind) in v6 {
            addresses6.insert(address, kind, 0).map_err(map_error)?;
        }
        let steering = mapped(&mut ebpf, "steering", STEERING_LEN)?;
        for index in 0..STEERING_LEN / 2 {
            steering.u16(index).store(NO_OWNER, Ordering::Relaxed);
        }
        let states = Arc::new(mapped(&mut ebpf, "states", usize::from(MAX_OWNERS) * STATE_LEN)?);
        let mut table = |name| {
            let table = descriptor(&mut ebpf, name)?.try_clone_to_owned();
            table.map_err(|error| LinkError::os(format!("keeping the table of {name}"), error))
        };
        let (rings, lanes) = (table("rings")?, table("lanes")?);
        let mut filter = Self {
            link: None,
            ebpf,
            mode: None,
            interface: String::new(),
            registry,
            steering,
            states,
            rings,
            lanes,
            past_overruns: BTreeMap::new(),
        };
        filter.write_settings()?;
        Ok(filter)
    }

    /// Takes an owner in and returns the receiver of its records. From now on frames on its ports are taken from
    /// the host.
    ///
    /// # Errors
    /// [`LinkError::Config`] when owner, ports or echo identifiers are taken, or the probe has too many match rules;
    /// [`LinkError::Os`] when there is no memory for the ring buffer.
    pub fn add_owner(&mut self, config: OwnerConfig) -> Result<RingReceiver, LinkError> {
        let bytes = config.ring_bytes.clamp(page_size(), 1 << 30).next_power_of_two();
        self.registry.add(&config)?;
        let added = self.install(&config, bytes);
        if added.is_err() {
            self.registry.remove(config.owner);
        }
        added
    }

    fn install(&mut self, config: &OwnerConfig, bytes: usize) -> Result<RingReceiver, LinkError> {
        let number = config.owner;
        let what = || format!("making a ring buffer of {bytes} bytes for owner {number}");
        let map = sys::create_ring(bytes as u32).map_err(|error| LinkError::os(what(), error))?;
        let ring = Ring::new(map.as_fd(), bytes).map_err(|error| LinkError::os(what(), error))?;
        let state = usize::from(number) * STATE_LEN;
        self.states.u32(state).store(0, Ordering::Relaxed);
        self.states.u64(state + 8).store(0, Ordering::Relaxed);
        sys::set_inner_map(self.rings.as_fd(), u32::from(number), map.as_fd())
            .map_err(|error| LinkError::os(what(), error))?;
        let lanes = Lanes::install(self.lanes.as_fd(), number)
            .inspect_err(|error| info!("owner {number}: all its records go by the ring buffer: {error}"))
            .ok();
        self.owners()?.set(u32::from(number), Owner::of(config), 0).map_err(map_error)?;
        self.write_settings()?;
        // The ports last: frames follow at once.
        self.steer(config, number);
        Ok(RingReceiver::new(number, lanes, ring, map, Arc::clone(&self.states)))
    }

    /// Gives an owner's ports back to the host. Its receiver keeps what it has not drained. Unknown owners are
    /// ignored.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the kernel refuses.
    pub fn remove_owner(&mut self, owner: u16) -> Result<(), LinkError> {
        let Some(config) = self.registry.remove(owner) else {
            return Ok(());
        };
        self.steer(&config, NO_OWNER);
        self.write_settings()?;
        sys::remove_inner_map(self.rings.as_fd(), u32::from(owner))
            .map_err(|error| LinkError::os(format!("removing the ring buffer of owner {owner}"), error))?;
        // There may be none.
        let _ = sys::remove_inner_map(self.lanes.as_fd(), u32::from(owner));
        let lost = self.overruns_of(owner);
        if lost > 0 {
            *self.past_overruns.entry(owner).or_default() += lost;
        }
        Ok(())
    }

    /// What became of the frames that were not simply the host's.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the kernel's counters cannot be read.
    pub fn counters(&self) -> Result<FilterCounters, LinkError> {
        let map = self.ebpf.map("counters").ok_or_else(|| missing("counters"))?;
        let counters: PerCpuArray<_, Counters> = map.try_into().map_err(map_error)?;
        let mut sum = FilterCounters::default();
        for cpu in counters.get(&0, 0).map_err(map_error)?.iter() {
            for reason in Reason::ALL {
                sum.add(reason, cpu.count[reason as usize]);
            }
        }
        sum.overruns = self.past_overruns.clone();
        for owner in self.registry.owners() {
            let lost = self.overruns_of(owner);
            if lost > 0 {
                *sum.overruns.entry(owner).or_default() += lost;
            }
        }
        Ok(sum)
    }

    /// How it is attached; `None` when it is only loaded.
    pub fn mode(&self) -> Option<XdpMode> {
        self.mode
    }

    /// The interface it is attached to; empty when it is only loaded.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Runs the program `repeat` times on `frame` without any network: its records and counters are as real as
    /// those of a received frame.
    ///
    /// # Errors
    /// [`LinkError::Os`] when the kernel refuses: a frame shorter than 14 bytes or longer than a page.
    pub fn rehearse(&mut self, frame: &[u8], repeat: u32) -> Result<Rehearsal, LinkError> {
        self.run(PROGRAM, frame, repeat)
    }

    /// The same on a program that passes everything: what the filter's cost is measured against.
    ///
    /// # Errors
    /// As [`KernelFilter::rehearse`].
    pub fn rehearse_pass(&mut self, frame: &[u8], repeat: u32) -> Result<Rehearsal, LinkError> {
        self.run(PROGRAM_PASS, frame, repeat)
    }

    fn run(&mut self, name: &'static str, frame: &[u8], repeat: u32) -> Result<Rehearsal, LinkError> {
        let program = self.program(name)?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let result = program.test_run(options).map_err(|error| program_error(name, error))?;
        Ok(Rehearsal { action: result.return_value, ns: result.duration.as_nanos() as u32 })
    }

    /// The program with this name, loaded when it is first asked for.
    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, LinkError> {
        let program: &mut Xdp = program_mut(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load().map_err(|error| program_error(name, error))?;
        }
        Ok(program)
    }

    fn owners(&mut self) -> Result<Array<&mut MapData, Owner>, LinkError> {
        map_mut(&mut self.ebpf, "owners")?.try_into().map_err(map_error)
    }

    fn write_settings(&mut self) -> Result<(), LinkError> {
        let settings = Settings::of(&self.registry);
        let mut map: Array<_, Settings> = map_mut(&mut self.ebpf, ".data.settings")?.try_into().map_err(map_error)?;
        map.set(0, settings, 0).map_err(map_error)
    }

    fn steer(&self, config: &OwnerConfig, owner: u16) {
        let (table, claims) = Registry::claims(config);
        let start = match table {
            Table::Port => 0,
            Table::Echo => 1 << 16,
        };
        for claim in claims {
            self.steering.u16(start + usize::from(claim)).store(owner, Ordering::Relaxed);
        }
    }

    fn overruns_of(&self, owner: u16) -> u64 {
        self.states.u64(usize::from(owner) * STATE_LEN + 8).load(Ordering::Relaxed)
    }
}

fn interface_index(interface: &str) -> Result<u32, LinkError> {
    nix::net::if_::if_nametoindex(interface).map_err(|errno| match errno {
        Errno::ENODEV | Errno::ENXIO | Errno::EINVAL => LinkError::UnknownInterface {
            name: interface.to_owned(),
            known: nix::net::if_::if_nameindex()
                .map(|all| all.iter().map(|one| one.name().to_string_lossy().into_owned()).collect())
                .unwrap_or_default(),
        },
        errno => LinkError::os(format!("looking up the interface {interface}"), errno.into()),
    })
}

fn occupied(interface: &str) -> LinkError {
    let there = Interface::by_name(interface).and_then(|device| device.xdp_program()).ok().flatten();
    let (id, name) = there.map_or_else(Default::default, |program| (program.id, program.name));
    let program = if name.is_empty() { "of unknown name".to_owned() } else { name };
    LinkError::Occupied { interface: interface.to_owned(), program, id }
}

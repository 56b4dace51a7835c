"""A test Internet on one machine: network namespaces with a World of synthetic hosts and real servers behind them."""

from irlstack.lab.handle import Lab
from irlstack.lab.topology import Impairment, LabConfig

__all__ = ["Impairment", "Lab", "LabConfig"]

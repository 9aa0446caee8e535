"""Synthetic chest radiographs: a small parametric anatomy, findings that change it, and sites that photograph it.

They are drawn for the demonstration and the tests. Nothing learned from them is worth anything in a patient.
"""

from polyhead.phantom.acquisition import Acquisition
from polyhead.phantom.demo import write_demo_sites
from polyhead.phantom.draw import draw_phantom
from polyhead.phantom.pathology import FINDINGS
from polyhead.phantom.site import write_site

__all__ = ["FINDINGS", "Acquisition", "draw_phantom", "write_demo_sites", "write_site"]

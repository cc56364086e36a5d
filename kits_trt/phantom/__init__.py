"""CT-like scans of the abdomen with exact labels, for training, tests and demonstrations."""

from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.model import Patient
from kits_trt.phantom.phases import PHASES, Phase
from kits_trt.phantom.real_anatomy import patient_from_labels
from kits_trt.phantom.rendering import render

__all__ = ["PHASES", "Patient", "Phase", "draw_patient", "patient_from_labels", "render"]

from .inputs import ReportInputs as ReportInputs, read_inputs as read_inputs
from .options import DashboardOptions as DashboardOptions
from .step import write_dashboard as write_dashboard, write_report as write_report

"""Text of a log into columns of numbers, a block at a time: what `fastpop.data` reads with. No torch."""

from fastpop.kernels.log_rows import AFTER_QUOTE as AFTER_QUOTE
from fastpop.kernels.log_rows import BAD_TICK as BAD_TICK
from fastpop.kernels.log_rows import DATE_TICK as DATE_TICK
from fastpop.kernels.log_rows import EMPTY_LINE as EMPTY_LINE
from fastpop.kernels.log_rows import ID_KINDS as ID_KINDS
from fastpop.kernels.log_rows import NO_ITEMS as NO_ITEMS
from fastpop.kernels.log_rows import NULL_TOKEN as NULL_TOKEN
from fastpop.kernels.log_rows import OPEN_QUOTE as OPEN_QUOTE
from fastpop.kernels.log_rows import PADDING as PADDING
from fastpop.kernels.log_rows import RAGGED as RAGGED
from fastpop.kernels.log_rows import REAL_TICK as REAL_TICK
from fastpop.kernels.log_rows import ROLES as ROLES
from fastpop.kernels.log_rows import SORT_BYTES as SORT_BYTES
from fastpop.kernels.log_rows import UNQUOTED as UNQUOTED
from fastpop.kernels.log_rows import WHOLE_TICK as WHOLE_TICK
from fastpop.kernels.log_rows import RowReader as RowReader
from fastpop.kernels.log_rows import count_byte as count_byte
from fastpop.kernels.log_rows import count_ids as count_ids
from fastpop.kernels.log_rows import dense_ids as dense_ids
from fastpop.kernels.log_rows import last_record_end as last_record_end
from fastpop.kernels.log_rows import layout as layout
from fastpop.kernels.log_rows import record_fields as record_fields

"""Jobs: work of a worker other than answering. Most jobs are stages of building a checkpoint.

Each job is a module with `run(job, report) -> result`, for one pair of types (job and result) in
`wire.jobs`; `dispatch` finds the module. A job writes only into the folders of `job.workspace`. Its
exceptions are reported as `Failed`.
"""

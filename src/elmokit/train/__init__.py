"""Train an ELMo from text: vocabulary, packed streams, softmax heads, a loop that resumes exactly.

`run.train` starts a run and `run.resume` goes on with one; `settings.Settings` is all that a run is told.
"""

"""Our models inside the two harnesses that the field uses, without a fork of either.

vlmevalkit.py starts VLMEvalKit's run.py with our class beside its own (vlmevalkit_model.py); lmms_eval.py is what
lmms-eval finds through its entry points, and lmms_eval_model.py the class; docvqa.py writes what the server of DocVQA's
test set takes. The harnesses are installed by who uses them; nothing else of ours imports this.
"""

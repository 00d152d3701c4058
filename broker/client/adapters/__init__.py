"""The Python tool for agent frameworks: each module is for one of them, and imported on demand.

    from broker.client.adapters.langchain import PythonTool

`words` has what a model is told; nothing there depends on any of the frameworks.
"""

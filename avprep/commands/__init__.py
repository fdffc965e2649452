"""What avprep's commands do, as functions: typed options in, a result out, nothing printed."""

"""Pictures that a person looks at: display colours, panels, heat maps, confusion matrices."""
